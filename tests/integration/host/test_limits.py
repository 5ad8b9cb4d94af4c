"""What a program may use."""

from __future__ import annotations

import pytest

from tests.integration.host.inline_host import BUSY, SLEEPER, bundle


def test_a_busy_program_is_ended_at_its_cpu_limit_and_its_neighbours_go_on(inline):
    neighbours = [inline.launch(SLEEPER, turns=30) for _ in range(4)]
    error = inline.error(bundle(BUSY, cpu_s=0.3))
    assert error.code == "cpu_limit"
    assert {inline.ending(pid) for pid in neighbours} == {("return", 30)}


def test_calls_to_the_host_are_what_a_busy_program_is_measured_by(inline):
    source = """
    import asyncio, time
    async def main() -> int:
        n, end = 0, time.monotonic() + 0.8
        while time.monotonic() < end:
            n += 1
            if n % 1000 == 0:
                await asyncio.sleep(0)
                print("here")
        return 1
    """
    assert inline.run(bundle(source, cpu_s=0.4)) == ("return", 1)


def test_memory_is_bounded_and_the_limit_is_named(inline):
    source = "async def main() -> int:\n    return len(bytearray(100_000_000))\n"
    error = inline.error(bundle(source, memory_mb=64))
    assert error.code == "memory_limit"
    assert "64 MB" in error.message
    assert "`memory_mb` under [limits] in pie.toml, up to the engine's 256" in error.hint
    assert inline.run(source) == ("return", 100_000_000)


HOARDERS = {
    "small objects": """
    async def main() -> None:
        held = []
        while True:
            held.append(bytearray(1000))
    """,
    "tasks": """
    import asyncio
    async def main() -> None:
        held = []
        while True:
            held.append(asyncio.create_task(asyncio.sleep(1000)))
            if len(held) % 1000 == 0:
                await asyncio.sleep(0)
    """,
    "timers": """
    import asyncio
    async def main() -> None:
        while True:
            asyncio.get_running_loop().call_later(1000, print)
    """,
    "a task of a group": """
    import asyncio
    async def hoard() -> None:
        held = []
        while True:
            held.append([len(held)] * 50)
            if len(held) % 1000 == 0:
                await asyncio.sleep(0)
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(hoard())
    """,
    "callbacks": """
    import asyncio
    async def main() -> None:
        loop = asyncio.get_running_loop()
        def again() -> None:
            loop.call_soon(again)
            loop.call_soon(again)
        again()
        await asyncio.sleep(1000)
    """,
}


QUICK = ["tasks"]


@pytest.mark.parametrize(
    "kind", [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in HOARDERS if kind not in QUICK)]
)
def test_memory_that_is_used_up_bit_by_bit_is_named_too(inline, kind):
    """Where nothing is left to report it with, and inside of asyncio."""
    error = inline.error(bundle(HOARDERS[kind], memory_mb=64))
    assert (error.code, error.message) == ("memory_limit", "the program used more than its 64 MB of memory")


def test_a_program_that_breaks_off_by_itself_has_not_run_out_of_memory(inline):
    assert inline.error("import os\nasync def main() -> None:\n    os.abort()\n").code == "exception"


def test_a_program_that_asks_for_more_than_the_engine_gives_is_warned_and_told_whose_limit_it_met(inline):
    source = "async def main() -> int:\n    return len(bytearray(300_000_000))\n"
    pid = inline.launch(bundle(source, memory_mb=512))
    inline.run_to_end()
    (_, warning), (_, error) = inline.events(pid)[1:]
    assert warning == {
        "level": "warning",
        "message": "pie.toml asks for `memory_mb` 512, and the engine gives 256; "
        "raise `memory_mb` under [host] in the configuration",
    }
    assert error["code"] == "memory_limit"
    assert "256 MB" in error["message"]
    assert "`memory_mb` under [host]" in error["hint"]
    assert "pie.toml" not in error["hint"]


def test_output_over_the_limit_ends_the_program_even_if_it_does_not_mind(inline):
    source = """
    from inferlet import session
    async def main() -> str:
        for n in range(100):
            try:
                session.send("x" * 10_000)
            except Exception:
                pass
        return "swallowed"
    """
    pid = inline.launch(bundle(source, output_mb=0.1))
    inline.run_to_end()
    kind, data = inline.ending(pid)
    assert (kind, data["code"]) == ("error", "output_limit")
    assert len(inline.events(pid)) == 12


def test_wall_time_is_bounded(inline):
    assert inline.error(bundle(SLEEPER, wall_s=0.1)).code == "wall_limit"
