"""Where snapshots come from: a daemon, over connections that break, or a recording."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple, Protocol

from pie_engine.errors import PieError
from pie_engine.protocol.stats import Snapshot

PAUSE_S = 1.0
"""Between two attempts to connect."""
SILENCE_S = 3.0
"""From here on a silent connection counts as broken."""


class Trouble(NamedTuple):
    """Why there are no snapshots for now; empty: they come again."""

    text: str
    is_over: bool = False
    """Nothing will come any more: the recording has ended."""


Update = Snapshot | Trouble


class StatsClient(Protocol):
    """The part of `PieClient` that a stream of snapshots needs."""

    def stats_stream(self, *, interval_ms: int) -> AsyncIterator[Snapshot]: ...


async def live(
    client: StatsClient, interval_s: float, *, silence_s: float = SILENCE_S, pause_s: float = PAUSE_S
) -> AsyncIterator[Update]:
    """The snapshots of a daemon, for as long as somebody reads: when it breaks it says so and connects again."""
    while True:
        problem = "the daemon has ended the stream"
        stream = client.stats_stream(interval_ms=round(interval_s * 1000))
        try:
            async for update in _unless_silent(stream, max(silence_s, 3 * interval_s)):
                yield update
        except PieError as error:
            problem = error.message
        yield Trouble(f"reconnecting: {problem}")
        await asyncio.sleep(pause_s)


async def _unless_silent(stream: AsyncIterator[Snapshot], silence_s: float) -> AsyncIterator[Update]:
    """The same, and after some silence that there is some: the client mends connections without a word."""
    iterator = aiter(stream)
    while True:
        coming = asyncio.ensure_future(anext(iterator))
        try:
            done, _ = await asyncio.wait({coming}, timeout=silence_s)
            if not done:
                yield Trouble("reconnecting: the daemon does not answer")
                await asyncio.wait({coming})
        finally:
            coming.cancel()
        try:
            yield coming.result()
        except StopAsyncIteration:
            return


async def replayed(snapshots: Iterable[Snapshot], speed: float) -> AsyncIterator[Update]:
    """The snapshots of a recording, `speed` times as fast as they were made; 0: as fast as they are shown."""
    last: float | None = None
    for snapshot in snapshots:
        if last is not None and speed:
            await asyncio.sleep(max(snapshot.at - last, 0.0) / speed)
        last = snapshot.at
        yield snapshot
        if not speed:
            await asyncio.sleep(0)
    yield Trouble("the recording has ended", is_over=True)
