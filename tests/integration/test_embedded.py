"""The engine inline: real guests, a fake or a real model, no sockets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import count

import pytest

from pie_engine.config import HostSection, ModelSection
from pie_engine.driver.fake_script import FakeScript, Fault, Reply
from pie_engine.embedded import Embedded, EmbeddedProcess
from pie_engine.errors import InvalidInput, LimitExceeded, NotFound, PieError
from pie_engine.protocol.program import Bundle, Limits, Manifest

FAKE = ModelSection(driver="fake", name="fake", num_pages=64, offload_memory_mb=1)
ASK = """
from inferlet import Context, session
async def main(prompt: str = "Hi", max_tokens: int = 40) -> str:
    ctx = Context()
    ctx.user(prompt)
    print("asking")
    session.send({"prompt": prompt})
    return await ctx.generate(max_tokens=max_tokens)
"""
_users = count(1)


@pytest.fixture(scope="module")
def engine() -> Iterator[Embedded]:
    with Embedded(HostSection(warm_instances=1, cancel_grace_s=0.1)) as running:
        yield running


@pytest.fixture
def fake(engine: Embedded) -> Embedded:
    """With a fake model that says one thing."""
    engine.load(FAKE, FakeScript(replies=(Reply("Hello there!"),)))
    return engine


def bundle(source: str, **limits: float) -> Bundle:
    return Bundle(Manifest(name="p", version="1.0", limits=Limits(**limits)), {"main.py": textwrap.dedent(source)})  # type: ignore[arg-type]


def launch(engine: Embedded, source: str, limits: dict[str, float] | None = None, **arguments: object):
    return engine.launch(bundle(source, **(limits or {})), arguments, user=f"user-{next(_users)}")


def run(engine: Embedded, source: str, **arguments: object) -> EmbeddedProcess:
    process = launch(engine, source, **arguments)
    process.wait(30)
    return process


def shown(process: EmbeddedProcess) -> list[tuple[str, object]]:
    return [(event.kind, json.loads(event.data)) for event in process.events]


def test_a_program_runs_in_the_sandbox_and_says_what_it_does(fake):
    process = run(fake, ASK, prompt="Who are you?")
    assert process.value == "Hello there!"
    assert shown(process) == [
        ("started", {"program": "p", "version": "1.0"}),
        ("stdout", "asking\n"),
        ("message", {"prompt": "Who are you?"}),
        ("return", "Hello there!"),
    ]


def test_what_it_took_is_counted_for_each_alone(fake):
    first, again = (run(fake, ASK, prompt="Who are you, and who are they? " * 8) for _ in range(2))
    assert first.usage == again.usage
    assert first.usage.cached_tokens == 0
    assert first.num_passes == again.num_passes == first.usage.completion_tokens + 1  # the end of the turn as well
    assert first.num_pages == again.num_pages == -(-(first.usage.prompt_tokens + first.usage.completion_tokens) // 16)


def test_nothing_is_held_when_it_has_ended(fake):
    run(fake, ASK)
    fake.turn()
    pool = fake.model("fake").pool
    assert pool.num_free == pool.num_pages


def test_its_own_exception_comes_with_its_own_lines(fake):
    process = run(fake, "async def main() -> None:\n    raise ValueError('no luck')\n")
    with pytest.raises(PieError, match="no luck") as caught:
        _ = process.value
    assert 'main.py", line 2, in main' in caught.value.traceback
    assert "pie_engine" not in caught.value.traceback


def test_wrong_input_is_refused_as_by_the_daemon(fake):
    error = run(fake, ASK, prompt=7).error
    assert error is not None
    assert error.code == "invalid_input"
    assert "prompt" in error.message


def test_messages_go_both_ways(fake):
    process = launch(fake, "from inferlet import session\nasync def main():\n    return [m async for m in session]\n")
    for value in ("a", {"b": 1}, None):
        process.send(value)
    process.wait(30)
    assert process.value == ["a", {"b": 1}]


def test_who_waits_for_a_message_that_nobody_sends_is_told(fake):
    process = launch(fake, "from inferlet import session\nasync def main():\n    return await session.receive()\n")
    with pytest.raises(InvalidInput, match="waits for a message"):
        process.wait(30)
    process.send("late")
    process.wait(30)
    assert process.value == "late"


async def test_a_client_can_answer_while_it_runs(fake):
    source = """
        import asyncio
        from inferlet import session
        async def main() -> int:
            total = 0
            for number in range(3):
                session.send(number)
                await asyncio.sleep(0.001)
                total += await session.receive()
            await session.drain()
            return total
    """
    process = launch(fake, source)
    async for event in process.follow():
        if event.kind == "message":
            await asyncio.sleep(0)
            process.send(json.loads(event.data) * 10)
    assert process.value == 30


async def test_several_run_at_once(fake):
    processes = [launch(fake, ASK, prompt=f"number {number}") for number in range(5)]

    async def end_of(process: EmbeddedProcess) -> object:
        async for _ in process.follow():
            pass
        return process.value

    assert await asyncio.gather(*map(end_of, processes)) == ["Hello there!"] * 5


def test_it_can_be_terminated(fake):
    process = launch(fake, "import asyncio\nasync def main() -> None:\n    await asyncio.sleep(60)\n")
    fake.turn()
    process.terminate()
    process.wait(30)
    assert process.error is not None
    assert process.error.code == "cancelled"


def test_limits_hold(fake):
    busy = "async def main() -> None:\n    while True: pass\n"
    process = launch(fake, busy, {"cpu_s": 0.05})
    process.wait(30)
    assert process.error is not None
    assert process.error.code == "cpu_limit"


def test_waiting_ends_in_time_and_the_program_goes_on(fake):
    process = launch(fake, "import asyncio\nasync def main():\n    await asyncio.sleep(0.2)\n    return 'done'\n")
    with pytest.raises(LimitExceeded, match="not ended in time"):
        process.wait(0.02)
    process.wait(30)
    assert process.value == "done"


def test_a_core_that_dies_ends_its_programs_and_comes_back(engine):
    engine.load(FAKE, FakeScript(replies=(Reply("Hello there!"),), faults=(Fault(2),)))
    lost = run(engine, ASK).error
    assert lost is not None
    assert lost.code == "core_lost"
    assert run(engine, ASK).value == "Hello there!"


def test_what_can_never_fit_is_refused_with_the_numbers(engine):
    engine.load(ModelSection(driver="fake", name="fake", num_pages=2, offload_memory_mb=1))
    error = run(engine, ASK, prompt="word " * 60, max_tokens=4).error
    assert error is not None
    assert error.code == "out_of_pages"
    assert "2" in error.message


def test_a_reply_that_comes_to_take_all_pages_keeps_its_text(engine):
    engine.load(ModelSection(driver="fake", name="fake", num_pages=2), FakeScript(replies=(Reply("word " * 60),)))
    source = """
from inferlet import Context

async def main() -> list[str]:
    ctx = Context()
    ctx.append("Count.")
    stream = ctx.generate(max_tokens=1000)
    return [await stream, stream.finish]
"""
    text, finish = run(engine, source).value
    assert text.startswith("word word")
    assert finish == "pages"


def test_a_model_can_be_replaced_and_taken_away(fake):
    fake.load(FAKE, FakeScript(replies=(Reply("Bye!"),)))
    assert fake.models == ["fake"]
    assert run(fake, ASK).value == "Bye!"
    fake.unload("fake")
    error = run(fake, ASK).error
    assert error is not None
    assert error.message.startswith("there is no model")


def test_the_first_of_several_models_is_the_default(fake):
    fake.load(ModelSection(driver="fake", name="other", num_pages=64, offload_memory_mb=1))
    source = "from inferlet import Model\nasync def main():\n    return [Model().info.name, Model.names()]\n"
    assert run(fake, source).value == ["fake", ["fake", "other"]]
    fake.unload("other")


def test_users_find_nothing_of_each_other(fake):
    save = (
        "from inferlet import Context\nasync def main():\n    c = Context()\n    c.append('x')\n    await c.save('s')\n"
    )
    saved = fake.launch(bundle(save), user="ann")
    saved.wait(30)
    assert saved.error is None
    opens = bundle("from inferlet import Context\nasync def main():\n    return Context.open('s').text\n")
    mine, another = fake.launch(opens, user="ann"), fake.launch(opens, user="bob")
    for process in (mine, another):
        process.wait(30)
    assert mine.value == "x"
    with pytest.raises(NotFound, match="`s`"):
        _ = another.value


def test_neither_torch_nor_sockets_are_needed():
    script = f"""
import sys
from pie_engine.embedded import Embedded
from pie_engine.config import ModelSection
from pie_engine.protocol.program import Bundle, Manifest
with Embedded() as engine:
    engine.load(ModelSection(driver="fake", name="fake", num_pages=64, offload_memory_mb=1))
    process = engine.launch(Bundle(Manifest(name="p"), {{"main.py": {ASK!r}}}), {{"max_tokens": 2}})
    process.wait(30)
    process.value
print([name for name in ("torch", "zmq", "numba", "fastapi", "uvicorn", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[]", done.stderr
