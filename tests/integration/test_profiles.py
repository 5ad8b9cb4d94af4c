"""Programs are profiled in an embedded engine: where their time goes, and the slow patterns that they show."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator
from itertools import count

import pytest

from pie_cli.profiles.awaits import awaits, lines
from pie_cli.profiles.hints import Hint, hints
from pie_cli.profiles.model import Profile, build
from pie_cli.profiles.phases import CHILDREN, CLIENT, DECODE, PAGES, PREFILL, PYTHON, SLEEP, phases
from pie_cli.profiles.read import Collected
from pie_cli.profiles.totals import totals
from pie_engine.config import HostSection, ModelSection
from pie_engine.driver.fake_script import FakeScript, Reply
from pie_engine.embedded import Embedded, EmbeddedProcess
from pie_engine.host import engine as guest_engine
from pie_engine.protocol.program import Bundle, Manifest

STEP_MS = 4.0
REPLY = "one two three four five six seven eight nine ten"
SCRIPT = FakeScript(replies=(Reply(REPLY),), step_delay_ms=STEP_MS)
_numbers = count(1)


@pytest.fixture(scope="module")
def engine() -> Iterator[Embedded]:
    """Programs here are not preempted by the clock: on a busy machine one may find its answer instead of waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guest_engine, "TICK_S", 0.5)
        with Embedded(HostSection(warm_instances=1, cancel_grace_s=0.1)) as running:
            yield running


def load(engine: Embedded, script: FakeScript = SCRIPT, **fields: object) -> None:
    options = {"num_pages": 256, "offload_memory_mb": 1, **fields}
    engine.load(ModelSection(driver="fake", name="fake", **options), script)  # type: ignore[arg-type]


def start(engine: Embedded, source: str, **arguments: object) -> EmbeddedProcess:
    bundle = Bundle(Manifest(name="p", version="1.0"), {"main.py": textwrap.dedent(source)})
    return engine.launch(bundle, arguments, user=f"user-{next(_numbers)}", trace=("profile",))


def profile_of(process: EmbeddedProcess) -> Profile:
    collected = Collected()
    for event in process.events:
        if event.kind == "trace":
            collected.take(json.loads(event.data))
    return build(collected.entries(), collected.full_mb)


def run(engine: Embedded, source: str, **arguments: object) -> Profile:
    process = start(engine, source, **arguments)
    process.wait(60)
    assert process.error is None, process.error
    return profile_of(process)


def hint(profile: Profile, name: str) -> Hint:
    (found,) = [each for each in hints(profile) if each.name == name]
    return found


def test_the_time_of_a_program_is_divided_by_what_it_was_for(engine):
    load(engine)
    profile = run(
        engine,
        """
        import asyncio
        from inferlet import Context
        async def main(prompt: str = "Tell me. " * 40) -> str:
            with Context() as ctx:
                ctx.user(prompt)
                reply = await ctx.generate(max_tokens=8)
            for _ in range(5):
                await asyncio.sleep(0.01)
            total = sum(i * i for i in range(300_000))
            return f"{reply}{total}"
        """,
    )
    found = phases(profile)
    assert sum(found.values()) == pytest.approx(profile.wall_us, rel=0.01)
    assert found[PREFILL] >= STEP_MS * 1000 * 0.8
    assert found[DECODE] >= 7 * STEP_MS * 1000 * 0.8
    assert found[SLEEP] == sum(wait.took for wait in profile.waits if wait.has_timeout) > 0
    assert found[PYTHON] > 5_000
    assert (profile.program, profile.version, profile.outcome, profile.tasks) == ("p", "1.0", "return", ["main"])
    total = totals(profile)
    assert (total.generated, total.cached) == (8, 0)
    assert total.prompt == total.prefilled > 40
    assert [line.place for line in lines(profile)] == ["main.py:7 in main"]
    assert hints(profile) == []


def test_each_task_has_its_awaits_with_the_line_of_the_program(engine):
    load(engine)
    profile = run(
        engine,
        """
        import asyncio
        from inferlet import Context
        async def branch(ctx, i):
            ctx.user(f"{i}?")
            return await ctx.generate(max_tokens=4 + i)
        async def main() -> list:
            ctx = Context()
            ctx.system("Be brief.")
            await ctx.flush()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(branch(ctx.fork(), i), name=f"branch {i}") for i in range(3)]
            return [task.result() for task in tasks]
        """,
    )
    assert profile.tasks == ["main", "branch 0", "branch 1", "branch 2"]
    found = awaits(profile)
    assert {each.place for each in found if each.task != "main"} == {"main.py:6 in branch"}
    assert {each.task for each in found} >= {"branch 0", "branch 1", "branch 2"}
    line = lines(profile)[0]
    assert line.place == "main.py:6 in branch"
    assert max(line.phases, key=lambda phase: line.phases[phase]) == DECODE
    assert hints(profile) == [], "its parent was flushed"


def test_what_gather_makes_tasks_of_is_on_the_line_of_gather(engine):
    load(engine)
    profile = run(
        engine,
        """
        import asyncio
        from inferlet import Context
        async def main() -> None:
            contexts = [Context().user(f"{i}?") for i in range(2)]
            await asyncio.gather(*(ctx.forward() for ctx in contexts))
        """,
    )
    assert {line.place for line in lines(profile)} == {"main.py:6 in main"}
    assert len({each.task for each in awaits(profile)}) == 2


def test_what_is_taken_of_a_future_is_on_the_line_that_asked_for_it(engine):
    load(engine)
    profile = run(
        engine,
        """
        import asyncio
        from inferlet import Context
        async def one(ctx):
            await ctx.forward()
            try:
                async with asyncio.timeout(0):
                    await ctx.forward([5])
            except TimeoutError:
                pass
        async def other(ctx):
            await ctx.flush()
            return await ctx.forward()
        async def main() -> None:
            ways = [one, other] * 2
            await asyncio.gather(*(way(Context().user(f"{i}?")) for i, way in enumerate(ways)))
        """,
    )
    ends = {(each.end.function, each.start.place, each.end.place) for each in profile.operations.values()}
    assert ends == {
        ("forward.finish", "main.py:5 in one", "main.py:5 in one"),
        ("futures.forget", "main.py:8 in one", "main.py:8 in one"),
        ("context.finish-flush", "main.py:12 in other", "main.py:12 in other"),
        ("forward.finish", "main.py:13 in other", "main.py:13 in other"),
    }
    assert {each.start.task == each.end.task for each in profile.operations.values()} == {True}


MANY_CALLS = """
from inferlet import Context
async def main(num_rounds: int = 5000) -> None:
    with Context() as ctx:
        for i in range(num_rounds):
            ctx.append([i % 200])
            ctx.truncate(0)
"""


def test_every_one_of_many_calls_is_noted_in_order(engine):
    load(engine)
    profile = run(engine, MANY_CALLS)
    appends = [call for call in profile.calls if call.function == "context.append"]
    assert [call.detail for call in appends] == [{"tokens": 1}] * 5000
    assert {(call.place, call.task) for call in appends} == {("main.py:6 in main", "main")}
    times = [call.at for call in profile.calls]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < profile.wall_us


def test_past_its_limit_a_profile_ends_and_the_program_goes_on():
    with Embedded(HostSection(warm_instances=1, trace_mb=0.01)) as engine:
        load(engine)
        process = start(engine, MANY_CALLS, num_rounds=30_000)
        process.wait(60)
        assert process.error is None, process.error
        profile = profile_of(process)
    assert (profile.full_mb, profile.is_whole) == (0.01, False)
    assert sum(event.kind == "log" and "raise `trace_mb`" in event.data for event in process.events) == 1


def test_forks_of_what_was_not_flushed_are_named(engine):
    load(engine)
    found = hint(
        run(
            engine,
            """
            import asyncio
            from inferlet import Context
            async def branch(ctx, i):
                ctx.user(f"{i}?")
                return await ctx.generate(max_tokens=4)
            async def main(prompt: str = "Tell me more. " * 30) -> list:
                ctx = Context()
                ctx.system(prompt)
                return await asyncio.gather(*(branch(ctx.fork(), i) for i in range(4)))
            """,
        ),
        "fork-unflushed",
    )
    assert found.what.startswith("4 forks")
    assert found.places == ["main.py:10 in <genexpr>"]
    assert "flush" in found.remedy


def test_forks_that_go_on_from_a_reply_are_not_named(engine):
    """Its last token runs in each of them, whatever the program does."""
    load(engine)
    profile = run(
        engine,
        """
        import asyncio
        from inferlet import Context
        async def main(prompt: str = "Tell me more. " * 30) -> None:
            ctx = Context().user(prompt)
            await ctx.flush()
            for _ in range(5):
                children = [ctx.fork() for _ in range(6)]
                await asyncio.gather(*(child.generate(max_tokens=4, ignore_eos=True) for child in children))
                ctx = children[0]
        """,
    )
    assert sum(fork.num_uncomputed == 1 for fork in profile.forks) == 24
    assert hints(profile) == []


TURNS = """
from inferlet import Context
async def main(num_turns: int = 4) -> int:
    said = []
    for turn in range(num_turns):
        ctx = Context()
        ctx.system("You are the keeper of a lighthouse. " * 20)
        for text in said:
            ctx.user(text)
        said.append(await ctx.generate(max_tokens=6))
        ctx.release()
    return len(said)
"""


def test_prompts_that_are_read_again_on_each_turn_are_named(engine):
    load(engine, prefix_cache="off")
    found = hint(run(engine, TURNS), "prefill-again")
    assert "3 times" in found.what
    assert found.places == ["main.py:10 in main"]
    assert "keep one Context" in found.remedy


def test_prompts_that_the_cache_finds_are_no_trouble(engine):
    load(engine)
    profile = run(engine, TURNS)
    assert hints(profile) == []
    assert totals(profile).cached > 0


def test_round_trips_to_the_client_are_named(engine):
    load(engine)
    process = start(
        engine,
        """
        from inferlet import Context, session
        async def ask(what):
            session.send({"tool": what})
            return await session.receive()
        async def main() -> list:
            return [await ask(i) for i in range(4)]
        """,
    )
    began, answered = time.monotonic(), 0
    while not process.has_ended:
        if sum(event.kind == "message" for event in process.events) > answered:
            answered += 1
            # A share of the wall time, however slow the machine is.
            time.sleep(0.03 + 0.1 * (time.monotonic() - began))
            process.send(answered)
        process.work(None)
    profile = profile_of(process)
    assert phases(profile)[CLIENT] >= 4 * 25_000
    found = hint(profile, "client-trips")
    assert found.what.startswith("4 round trips")
    assert found.places == ["main.py:5 in ask"]


def test_waiting_for_pages_is_named(engine):
    load(engine, num_pages=24, prefix_cache="off")
    profile = run(
        engine,
        """
        import asyncio
        from inferlet import Context
        async def one(i):
            with Context() as ctx:
                ctx.user(f"{i} " * 60)
                return await ctx.generate(max_tokens=20, ignore_eos=True)
        async def main() -> int:
            return len(await asyncio.gather(*(one(i) for i in range(5))))
        """,
    )
    assert phases(profile)[PAGES] > 0
    found = hint(profile, "page-waits")
    assert found.places == ["main.py:7 in one"]
    assert "release" in found.remedy


def test_a_program_that_fails_has_a_profile_too(engine):
    load(engine)
    process = start(engine, "async def main() -> int:\n    return 1 / 0\n")
    process.wait(60)
    profile = profile_of(process)
    assert profile.outcome == "exception"
    assert profile.is_whole


def test_a_wait_for_a_child_is_a_phase_of_its_own(engine):
    load(engine)
    user = f"user-{next(_numbers)}"
    sleeper = "import asyncio\nasync def main() -> None:\n    await asyncio.sleep(0.1)\n"
    engine.publish(Bundle(Manifest("worker"), {"main.py": sleeper}), user=user)
    source = """from inferlet import runtime
async def main() -> None:
    child = await runtime.launch("worker")
    await child.result()
"""
    boss = Bundle(Manifest("p", launches=("worker",)), {"main.py": source})
    process = engine.launch(boss, user=user, trace=("profile",))
    process.wait(60)
    profile = profile_of(process)
    found = phases(profile)
    assert found[CHILDREN] > 0
    assert found[SLEEP] == found[CLIENT] == 0
    assert lines(profile)[0].place == "main.py:4 in main"
    assert max(lines(profile)[0].phases.items(), key=lambda item: item[1])[0] == CHILDREN
