"""Programs in a Python of their own: the same calls, limits and ends as in the sandbox, and the same results."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pie_client.bundle import pack
from pie_engine.config import ModelSection
from pie_engine.driver.fake_script import FakeScript, Reply
from pie_engine.embedded import Embedded, EmbeddedProcess
from pie_engine.errors import Cancelled, InvalidProgram
from pie_engine.protocol.program import Bundle, Limits, Manifest
from tests.integration.native.runs import FAKE, WAITER, NativeRun

SHIPPED = sorted(folder for folder in (Path(__file__).parents[3] / "inferlets").iterdir() if folder.is_dir())
Native = Callable[..., NativeRun]


@pytest.fixture
def native(fake: Embedded, tmp_path: Path) -> Iterator[Native]:
    """Runs a source, or the program in a folder."""
    runs = []

    def start(source: str | Path, arguments: dict[str, object] | None = None, **session: object) -> NativeRun:
        folder = source if isinstance(source, Path) else tmp_path
        if isinstance(source, str):
            (tmp_path / "main.py").write_text(textwrap.dedent(source))
        runs.append(NativeRun(fake, pack(folder), arguments or {}, folder, **session))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


def shown(process: EmbeddedProcess) -> list[tuple[str, object]]:
    return [(event.kind, json.loads(event.data)) for event in process.events if event.kind != "started"]


def said(process: EmbeddedProcess) -> list[tuple[str, object]]:
    """With the text of a reply as one: its pieces are as long as the program was busy."""
    text = "".join(value for kind, value in shown(process) if kind == "message" and isinstance(value, str))
    return [("text", text), *((kind, value) for kind, value in shown(process) if kind != "message")]


def test_what_it_says_and_returns_are_events_of_its_process(native):
    run = native(
        """
        from inferlet import Context, log, session
        async def main(prompt: str) -> dict:
            ctx = Context()
            ctx.user(prompt)
            print("asking")
            log.warning("careful")
            session.send({"n": 1})
            text = await ctx.generate()
            return {"text": text, "last": await session.receive()}
        """,
        {"prompt": "Hi"},
    )
    run.process.send("bye")
    process = run.finish()
    assert shown(process) == [
        ("stdout", "asking\n"),
        ("log", {"level": "warning", "message": "careful"}),
        ("message", {"n": 1}),
        ("return", {"text": "Hello there!", "last": "bye"}),
    ]
    assert process.usage.completion_tokens == 3
    assert run.python.wait(10) == 0
    assert run.engine.host.guests.sockets == {}


def test_the_market_is_the_same_there(native):
    run = native(
        """
        from inferlet import Context, InvalidInput, scheduling
        async def main() -> list:
            ctx = Context().bid(0.25)
            with ctx.idle():
                away = await scheduling()
            market = await scheduling()
            try:
                await scheduling("none")
            except Exception as error:
                return [away.bid, market.bid, market.policy, market.num_pages_in_all, type(error).__name__]
        """
    )
    assert run.finish().value == [0.0, 0.25, "market", 256, "NotFound"]


ARGUMENTS = {
    "background": {"documents": ["A text."], "questions": ["Why?"], "max_tokens": 8},
    "best-of-n": {"prompt": "Why?", "n": 3, "max_tokens": 8},
    "chat": {"prompt": "Why?", "max_tokens": 8},
    "react": {"question": "What is 2 + 3?"},
}


@pytest.mark.slow
@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_shipped_program_does_what_it_does_in_the_sandbox(fake, native, folder):
    arguments = ARGUMENTS[folder.name]
    inside = fake.launch(pack(folder), arguments, user="inside")
    inside.wait(60)
    fake.load(FAKE, FakeScript(replies=(Reply("Hello there!"),)))
    outside = native(folder, arguments).finish()
    assert said(outside) == said(inside)
    assert outside.usage == inside.usage


SAMPLED = """
import asyncio
from inferlet import Context, Sampler

async def main(seed: int) -> list:
    ctx = Context("pie-tiny", seed=seed)
    ctx.user("Tell me a story about a fox.")
    await ctx.flush()
    forks = [ctx.fork() for _ in range(3)]
    replies = await asyncio.gather(*(fork.generate(Sampler.temperature(1.2), max_tokens=24) for fork in forks))
    stream = ctx.generate(Sampler(temperature=1.0, top_p=0.9, min_p=0.01), max_tokens=16, logprobs=True)
    replies.append(await stream)
    step = await ctx.forward([5], sampler=Sampler.temperature(1.5))
    return [replies, stream.logprobs, step.token]
"""


@pytest.mark.slow
def test_what_is_drawn_by_chance_is_the_same_there(engine, tmp_path):
    """Seeded, on a real model: the order in which tasks, forks and steps come must not matter either."""
    (tmp_path / "main.py").write_text(SAMPLED)
    bundle = pack(tmp_path)
    engine.load(ModelSection(path="pie-tiny", driver="cpu", dtype="float32", num_threads=1, prefix_cache="off"))
    run = NativeRun(engine, bundle, {"seed": 7}, tmp_path)
    try:
        inside = [engine.launch(bundle, {"seed": seed}) for seed in (7, 8)]
        for process in inside:
            process.wait(60)
        texts, logprobs, token = inside[0].value
        assert len({*texts}) == 4, "forks draw differently"
        assert texts != inside[1].value[0], "it is chance"
        outside = run.finish()
        assert (outside.value[0], outside.value[2]) == (texts, token)
        assert outside.value[1] == pytest.approx(logprobs, abs=1e-4), "batches of other shapes round differently"
        assert outside.usage == inside[0].usage
    finally:
        run.close()
        engine.unload("pie-tiny")


@pytest.mark.slow
def test_an_error_is_reported_with_the_names_that_the_sandbox_uses(native):
    process = native("async def main() -> None:\n    raise KeyError('x')\n").finish()
    error = process.error
    assert error is not None
    assert (error.code, error.message) == ("exception", "KeyError: 'x'")
    assert 'File "main.py", line 2, in main' in error.traceback


@pytest.mark.slow
def test_what_the_sandbox_does_not_have_is_not_there(native):
    process = native("import numpy\nasync def main() -> None: ...\n").finish()
    assert isinstance(process.error.raised(), InvalidProgram)
    assert "native code" in process.error.message


@pytest.mark.slow
def test_errors_of_the_host_are_raised(native):
    run = native(
        """
        from inferlet import Context, NotFound
        async def main() -> str:
            try:
                Context("nothing")
            except NotFound as error:
                return error.message
        """
    )
    assert "nothing" in str(run.finish().value)


@pytest.mark.slow
def test_time_spent_elsewhere_does_not_count(fake, tmp_path):
    source = "import time\nasync def main() -> int:\n    time.sleep(0.3)\n    return 1\n"
    (tmp_path / "main.py").write_text(source)
    bundle = Bundle(Manifest(name="p", limits=Limits(wall_s=0.2, cpu_s=0.1)), {"main.py": source})
    run = NativeRun(fake, bundle, {}, tmp_path)
    try:
        assert run.finish().value == 1
    finally:
        run.close()


def test_it_can_be_asked_to_end(native):
    run = native(
        """
        import asyncio
        from inferlet import session
        async def main() -> str:
            try:
                return await session.receive()
            except asyncio.CancelledError:
                return "tidied up"
        """
    )
    run.until(lambda: run.engine.host.guests.sockets)
    run.until(lambda: run.engine.host.processes[run.process.pid].is_waiting)
    run.process.terminate()
    assert run.finish().value == "tidied up"


@pytest.mark.slow
def test_one_that_does_not_end_is_ended_and_its_next_call_says_so(native):
    run = native(
        """
        import sys, time
        from inferlet import Context
        async def main() -> None:
            print("here", flush=True)
            sys.__stdin__.readline()
        """
    )
    run.until(lambda: any(event.kind == "stdout" for event in run.process.events))
    run.process.terminate()
    process = run.finish()
    assert process.error.code in ("cancelled", "unsupported")


def test_a_debugger_that_is_killed_ends_its_process(native):
    run = native(WAITER)
    run.until(lambda: any(event.kind == "stdout" for event in run.process.events))
    os.kill(run.python.pid, signal.SIGKILL)
    process = run.finish()
    assert isinstance(process.error.raised(), Cancelled)
    assert "the Python that ran the program has ended" in process.error.message
    assert run.engine.host.guests.sockets == {}


@pytest.mark.slow
def test_ctrl_c_ends_a_program_that_waits(native):
    run = native(WAITER)
    run.until(lambda: any(event.kind == "stdout" for event in run.process.events))
    os.kill(run.python.pid, signal.SIGINT)
    assert run.finish().error.message == "the program was ended by Ctrl-C"


def test_breakpoint_opens_pdb_on_stdin_with_the_live_context(native):
    run = native(
        """
        from inferlet import Context
        async def main() -> str:
            ctx = Context()
            ctx.user("Hi")
            print("before")
            breakpoint()
            return await ctx.generate()
        """
    )
    run.python.stdin.write("p 'length', ctx.length\nn\nc\n")
    run.python.stdin.flush()
    process = run.finish()
    assert process.value == "Hello there!"
    assert ("stdout", "before\n") in shown(process)
    assert "('length', 5)" in run.python.stderr.read().replace("(Pdb) ", "")


@pytest.mark.slow
def test_leaving_pdb_ends_the_program(native):
    run = native("async def main() -> None:\n    breakpoint()\n    return None\n")
    run.python.stdin.write("q\n")
    run.python.stdin.flush()
    assert run.finish().error.message == "the program was ended in the debugger"


@pytest.mark.slow
def test_post_mortem_stands_where_the_program_has_failed(native):
    run = native("async def main() -> None:\n    word = 'seen'\n    raise ValueError(word)\n", pm=True)
    run.python.stdin.write("p word * 2\nq\n")
    run.python.stdin.flush()
    assert run.finish().error.message == "ValueError: seen"
    said = run.python.stderr.read()
    assert "'seenseen'" in said
    assert "ValueError: seen" in said


WORKER = """
from inferlet import session
async def main(n: int) -> int:
    session.send({"half": n})
    if n < 0:
        raise ValueError("less than nothing")
    return n + await session.receive()
"""
BOSS = """
from inferlet import ChildFailed, PieError, runtime

async def main() -> list:
    async with await runtime.launch("worker", n=2, endowment=5) as child:
        said = await anext(child.messages())
        child.send(40)
        value = await child.result()
    failed = await runtime.launch("worker", n=-1)
    try:
        await failed.result()
    except ChildFailed as error:
        failure = [error.failure.code, error.failure.message, "less than" in error.failure.traceback]
    left = await runtime.launch("worker", n=0)
    left.terminate()
    try:
        await left.result()
    except ChildFailed as error:
        failure.append(error.failure.code)
    refused = []
    for name in ("nobody", "other"):
        try:
            await runtime.launch(name)
        except PieError as error:
            refused.append([error.code, error.message])
    return [said, value, failure, refused]
"""


def test_children_are_those_of_the_sandbox(fake, tmp_path):
    bundle = Bundle(Manifest("boss", launches=("worker", "nobody")), {"main.py": BOSS})
    (tmp_path / "main.py").write_text(BOSS)
    fake.publish(Bundle(Manifest("worker"), {"main.py": WORKER}))
    inside = fake.launch(bundle)
    inside.wait(60)
    run = NativeRun(fake, bundle, {}, tmp_path)
    try:
        assert shown(run.finish()) == shown(inside)
    finally:
        run.close()
    assert inside.value == [
        {"half": 2},
        42,
        ["exception", "ValueError: less than nothing", True, "cancelled"],
        [
            ["not_found", "no program `nobody`; an embedded engine knows those that it was given: `programs=` of "
             "`run`, `publish` of `Embedded`"],
            ["invalid_input", '`boss` may not launch `other`; write `launches = ["worker", "nobody", "other"]` under '
             "`[program]` in pie.toml"],
        ],
    ]  # fmt: skip


def test_children_end_with_a_python_that_is_killed(fake, tmp_path):
    source = """
from inferlet import runtime, session
async def main() -> None:
    child = await runtime.launch("worker", n=1)
    session.send(child.pid)
    await session.receive()
"""
    (tmp_path / "main.py").write_text(source)
    fake.publish(Bundle(Manifest("worker"), {"main.py": WORKER}))
    run = NativeRun(fake, Bundle(Manifest("boss", launches=("worker",)), {"main.py": source}), {}, tmp_path)
    try:
        run.until(lambda: any(kind == "message" for kind, _ in shown(run.process)))
        (pid,) = [value for kind, value in shown(run.process) if kind == "message"]
        assert pid in fake.host.processes
        os.kill(run.python.pid, signal.SIGKILL)
        assert run.finish().error.code == "cancelled"
        assert pid not in fake.host.processes
    finally:
        run.close()
