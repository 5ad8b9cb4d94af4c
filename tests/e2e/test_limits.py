"""What a program may do to its host and its neighbours, tried on the real daemon."""

from __future__ import annotations

import asyncio
import time

from pie_client import Event
from pie_engine.protocol.program import Bundle, Limits, Manifest

NEIGHBOUR = """
import asyncio
from inferlet import session

async def main(turns: int = 40) -> int:
    for turn in range(turns):
        await asyncio.sleep(0.02)
        session.send(turn)
    return turns
"""


def program(source, **limits):
    return Bundle(Manifest(name="limited", limits=Limits(**limits)), files={"main.py": source})


async def events_of(client, bundle, **arguments):
    async with asyncio.timeout(60):
        return [pair async for pair in await client.launch_process(bundle, input=arguments)]


def error_of(events):
    event, error = events[-1]
    assert event is Event.Error, events[-1]
    return error


async def test_a_busy_loop_is_ended_while_its_neighbours_go_on(client):
    busy = program("async def main() -> None:\n    while True:\n        pass\n", cpu_s=0.5)
    started = time.monotonic()
    neighbour, ended = await asyncio.gather(events_of(client, program(NEIGHBOUR)), events_of(client, busy))
    assert neighbour[-1] == (Event.Return, 40)
    error = error_of(ended)
    assert error.code == "cpu_limit"
    assert "0.5" in error.message
    assert time.monotonic() - started < 10


async def test_a_program_over_its_memory_is_ended_with_the_limit_named(client):
    hungry = program("async def main() -> int:\n    return len(bytearray(200_000_000))\n", memory_mb=64)
    error = error_of(await events_of(client, hungry))
    assert error.code == "memory_limit"
    assert "64" in error.message


async def test_memory_taken_bit_by_bit_is_ended_too(client):
    hoard = "async def main() -> None:\n    kept = []\n    while True:\n        kept.append(bytearray(1_000_000))\n"
    assert error_of(await events_of(client, program(hoard, memory_mb=64))).code == "memory_limit"


async def test_output_is_bounded_even_if_the_program_swallows_the_error(client):
    chatty = program(
        """
from inferlet import session

async def main() -> str:
    for _ in range(100):
        try:
            session.send("x" * 100_000)
        except Exception:
            pass
    return "swallowed"
""",
        output_mb=1,
    )
    events = await events_of(client, chatty)
    assert error_of(events).code == "output_limit"
    sent = sum(len(value) for event, value in events if event is Event.Message)
    assert 800_000 < sent <= 1_000_000


async def test_wall_time_is_bounded(client):
    sleeper = program("import asyncio\nasync def main() -> None:\n    await asyncio.sleep(60)\n", wall_s=0.3)
    assert error_of(await events_of(client, sleeper)).code == "wall_limit"


async def test_a_10_mb_print_arrives_whole_and_in_order(client):
    source = """
from inferlet import session

async def main() -> int:
    text = "".join(f"{n:09d}\\n" for n in range(1_000_000))
    session.send("before")
    print(text, end="")
    session.send("after")
    return len(text)
"""
    events = await events_of(client, program(source))
    kinds = [event for event, _ in events if event in (Event.Message, Event.Stdout)]
    printed = "".join(value for event, value in events if event is Event.Stdout)
    assert events[-1] == (Event.Return, 10_000_000)
    assert printed == "".join(f"{n:09d}\n" for n in range(1_000_000))
    assert kinds[0] is Event.Message
    assert kinds[-1] is Event.Message
    assert set(kinds[1:-1]) == {Event.Stdout}


async def test_time_sleep_blocks_the_program_but_not_its_neighbours(client):
    sleeper = program("import time\nasync def main() -> None:\n    time.sleep(1.0)\n")
    started = time.monotonic()
    neighbour, slept = await asyncio.gather(events_of(client, program(NEIGHBOUR)), events_of(client, sleeper))
    assert neighbour[-1] == (Event.Return, 40)
    assert slept[-1] == (Event.Return, None)
    assert 1.0 <= time.monotonic() - started < 4


async def test_a_blocking_select_waits_its_timeout(client):
    source = """
import select, time

async def main() -> float:
    started = time.monotonic()
    select.select([], [], [], 0.2)
    return time.monotonic() - started
"""
    event, waited = (await events_of(client, program(source)))[-1]
    assert event is Event.Return
    assert 0.2 <= waited < 2


async def test_waiting_for_nothing_is_a_deadlock_not_a_hang(client):
    stuck = program("import asyncio\nasync def main() -> None:\n    await asyncio.Event().wait()\n")
    error = error_of(await events_of(client, stuck))
    assert "deadlock" in error.message.lower()


async def test_a_program_that_ignores_cancellation_is_killed_after_the_grace(client):
    stubborn = program(
        """
import asyncio
from inferlet import session

async def main() -> None:
    session.send("up")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""
    )
    process = await client.launch_process(stubborn)
    seen = []
    async with asyncio.timeout(20):
        async for event, value in process:
            seen.append((event, value))
            if event is Event.Message:
                await process.terminate()
    assert error_of(seen).code == "cancelled"


async def test_a_cancelled_program_may_clean_up(client):
    tidy = program(
        """
import asyncio
from inferlet import session

async def main() -> None:
    session.send("up")
    try:
        await asyncio.sleep(60)
    finally:
        session.send("cleaned up")
"""
    )
    process = await client.launch_process(tidy)
    seen = []
    async for event, value in process:
        seen.append((event, value))
        if value == "up":
            await process.terminate()
    assert (Event.Message, "cleaned up") in seen
    assert error_of(seen).code == "cancelled"
