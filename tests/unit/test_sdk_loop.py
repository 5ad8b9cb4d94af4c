"""The event loop over one waiting call: asyncio, termination, deadlocks, and what a sandbox does not have."""

from __future__ import annotations

import asyncio
import time

import pytest

from inferlet import Unsupported, _transport, session
from inferlet._loop import Deadlock, HostLoop
from inferlet.testing import FakeHost, run_inferlet


@pytest.fixture
def host():
    fake = FakeHost()
    before = _transport.connect(fake)
    yield fake
    _transport.connect(before)


def test_gather_queue_timeout_and_cancellation():
    async def main():
        queue = asyncio.Queue()

        async def put(n):
            await asyncio.sleep(0.01 * n)
            await queue.put(n)
            return n

        got = await asyncio.gather(*(put(n) for n in range(4)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(5)
        task = asyncio.create_task(asyncio.sleep(5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [got, [queue.get_nowait() for _ in range(4)]]

    assert run_inferlet(main).value == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_a_busy_program_asks_the_host_only_now_and_then(host):
    async def main():
        for _ in range(80):
            await asyncio.sleep(0)

    HostLoop().run(main())
    assert 5 <= host.calls["futures.wait_any"] <= 20


def test_termination_cancels_main_once(host):
    seen = []

    async def main():
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0.001)
            seen.append("cleaned up")
            raise

    loop = HostLoop()
    host.terminate()
    with pytest.raises(asyncio.CancelledError):
        loop.run(main())
    assert loop.is_terminated
    assert seen == ["cancelled", "cleaned up"]


def test_termination_ends_a_blocking_wait_too(host):
    async def main():
        asyncio.get_running_loop().block(60)

    started = time.monotonic()
    host.terminate()
    with pytest.raises(asyncio.CancelledError):
        HostLoop().run(main())
    assert time.monotonic() - started < 1


def test_a_deadlock_says_where_it_waits():
    async def main():
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"deadlock: .*test_sdk_loop.py:\d+ in main"):
        run_inferlet(main)


def test_leftover_tasks_are_cancelled(host):
    seen = []

    async def child():
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")

    async def main():
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        return task is not None

    assert HostLoop().run(main())
    assert seen == ["ended"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: asyncio.to_thread(print), "no threads"),
        (lambda: asyncio.create_subprocess_exec("ls"), "cannot start processes"),
        (lambda: asyncio.open_connection("localhost", 80), "no network"),
    ],
)
def test_what_a_sandbox_does_not_have_is_named(wrong, words):
    async def main():
        await wrong()

    with pytest.raises(Unsupported) as caught:
        run_inferlet(main)
    assert words in caught.value.message
    assert caught.value.hint


def test_messages_arrive_in_order_and_a_cancelled_receive_loses_none(host):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await session.receive()
        for number in range(3):
            host.post(number)
        got = []
        async for message in session:
            got.append(message)
            if len(got) == 3:
                break
        await session.drain()
        return got

    assert HostLoop().run(main()) == [0, 1, 2]


def test_iterating_over_the_session_ends_at_null():
    async def main():
        texts = [message async for message in session]
        return [texts, await session.receive(), await session.receive()]

    assert run_inferlet(main, inbox=["a", 0, None, "b", None]).value == [["a", 0], "b", None]


def test_another_loop_is_refused_with_a_way_out(host):
    from inferlet import Context

    async def main():
        await Context().append("x").flush()

    with pytest.raises(RuntimeError, match="run_inferlet"):
        asyncio.run(main())
