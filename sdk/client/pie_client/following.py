"""The events of one process, over connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from pie_client.errors import Interrupted
from pie_client.events import Arrival, EventParser
from pie_engine.errors import PieError

if TYPE_CHECKING:
    from pie_client.transport import Reply

MAX_PAUSE_S = 0.5
"""Between attempts, when the connection breaks each time before anything comes."""


class Following:
    """Gives every event once and in order. `reopen(after)` gives a stream of what came after event `after`.

    Reading is a task of its own: whoever waits for it may be cancelled, and no byte is lost.
    """

    def __init__(self, reopen: Callable[[int], Awaitable[Reply]], reply: Reply | None, after: int) -> None:
        self.has_ended = False
        """The last event of the process was read, and the stream with it."""
        self._reopen = reopen
        self._reply = reply
        self._newest_seq = after
        self._pieces: AsyncIterator[bytes] | None = None
        self._parser = EventParser()
        self._reading: asyncio.Task[list[Arrival]] | None = None
        self._num_breaks = 0
        """Of the connection, since something came."""

    async def more(self) -> list[Arrival]:
        """Those that come next. It can be none: at the end, after a break, and when somebody else waits, too."""
        reading = self._reading
        if reading is None:
            reading = self._reading = asyncio.create_task(self._read())
            reading.add_done_callback(_looked_at)
        await asyncio.wait({reading})
        if reading is not self._reading:
            return []
        self._reading = None
        return [] if reading.cancelled() else reading.result()

    async def close(self) -> None:
        """Whoever waits gets nothing more."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait({reading})
        await self._disconnect()

    async def _read(self) -> list[Arrival]:
        try:
            piece = await self._next_piece()
        except Interrupted:
            await self._reconnect()
            return []
        self._num_breaks = 0
        arrivals = [arrival for arrival in self._parser.feed(piece) if self._is_new(arrival)]
        if self.has_ended or any(arrival.event.is_terminal for arrival in arrivals):
            await self._finish()
        return arrivals

    async def _next_piece(self) -> bytes:
        """Empty at the orderly end of the stream, which the daemon only gives it after the last event."""
        if self._pieces is None:
            if self._reply is None:
                raise Interrupted("not connected")
            self._pieces = self._reply.pieces()
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self.has_ended = True
            return b""

    def _is_new(self, arrival: Arrival) -> bool:
        is_new = arrival.seq > self._newest_seq
        self._newest_seq = max(self._newest_seq, arrival.seq)
        return is_new

    async def _finish(self) -> None:
        """Read the end of the body, which gives the connection back to the pool."""
        self.has_ended = True
        pieces, self._pieces = self._pieces, None
        try:
            while pieces is not None:
                await anext(pieces)
        except (StopAsyncIteration, PieError):
            pass
        await self._disconnect()

    async def _reconnect(self) -> None:
        await self._disconnect()
        if self._num_breaks:
            await asyncio.sleep(min(0.02 * 2**self._num_breaks, MAX_PAUSE_S))
        self._num_breaks += 1
        self._parser = EventParser()
        self._reply = await self._reopen(self._newest_seq)

    async def _disconnect(self) -> None:
        reply, self._reply = self._reply, None
        self._pieces = None
        if reply is not None:
            await reply.close()


def _looked_at(reading: asyncio.Task[list[Arrival]]) -> None:
    """When all who waited were cancelled, nobody else asks a broken connection for its error."""
    if not reading.cancelled():
        reading.exception()
