"""A process on the daemon, as a client sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pie_client.errors import EndOfEvents, Interrupted
from pie_client.events import Arrival, Event, EventParser
from pie_engine.errors import PieError

if TYPE_CHECKING:
    from pie_client.client import PieClient
    from pie_client.transport import Reply

MAX_PAUSE_S = 0.5
"""Between attempts, when the connection breaks each time before anything comes."""


class Process:
    """Events in, messages out. Breaks of the connection are mended: no event is lost or comes twice."""

    def __init__(self, client: PieClient, pid: str, reply: Reply | None, after: int = 0) -> None:
        self.pid = pid
        self.last_seq = after
        """Number of the newest event that `recv` has given."""
        self._client = client
        self._arrived: deque[Arrival] = deque()
        self._newest_seq = after
        self._reply = reply
        self._pieces: AsyncIterator[bytes] | None = None
        self._parser = EventParser()
        self._has_ended = False
        self._num_breaks = 0
        """Of the connection, since something came."""

    async def recv(self) -> tuple[Event, Any]:
        """The next event and its value. Raises `EndOfEvents` after `Return` or `Error`."""
        while not self._arrived:
            if self._has_ended:
                raise EndOfEvents
            await self._fill()
        arrival = self._arrived.popleft()
        self.last_seq = arrival.seq
        return arrival.event, arrival.value

    def __aiter__(self) -> Process:
        return self

    async def __anext__(self) -> tuple[Event, Any]:
        return await self.recv()

    async def result(self) -> Any:
        """The value of `main`, past all other events. Raises the error that the process ended with."""
        async for event, value in self:
            if event is Event.Return:
                return value
            if event is Event.Error:
                raise value.raised()
        raise Interrupted(f"the events of process {self.pid} ended without a result")

    async def send(self, value: object) -> int:
        """A message to the program; returns its number when the daemon has it safely."""
        reply = await self._client.request("POST", f"/v1/processes/{self.pid}/messages", {"value": value})
        seq: int = reply["seq"]
        return seq

    async def terminate(self) -> None:
        """Ask it to end. It ends with the error `cancelled`, unless it was faster."""
        await self._client.request("DELETE", f"/v1/processes/{self.pid}", can_repeat=True)

    async def close(self) -> None:
        """Listen no more. With `on_disconnect="terminate"` the process is then ended."""
        reply, self._reply = self._reply, None
        self._pieces = None
        self._client.forget(self)
        if reply is not None:
            await reply.close()

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Filling.

    async def _fill(self) -> None:
        """Wait for more events."""
        try:
            piece = await self._next_piece()
        except Interrupted:
            await self._reconnect()
            return
        self._num_breaks = 0
        for arrival in self._parser.feed(piece):
            if arrival.seq > self._newest_seq:
                self._newest_seq = arrival.seq
                self._arrived.append(arrival)
                self._has_ended = self._has_ended or arrival.event.is_terminal
        if self._has_ended:
            await self._finish()

    async def _next_piece(self) -> bytes:
        """Empty at the orderly end of the stream, which the daemon only gives it after the last event."""
        if self._pieces is None:
            if self._reply is None:
                raise Interrupted("not connected")
            self._pieces = self._reply.pieces()
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._has_ended = True
            return b""

    async def _finish(self) -> None:
        """Read the end of the body, which gives the connection back to the pool."""
        pieces, self._pieces = self._pieces, None
        try:
            while pieces is not None:
                await anext(pieces)
        except (StopAsyncIteration, PieError):
            pass
        await self.close()

    async def _reconnect(self) -> None:
        await self.close()
        if self._num_breaks:
            await asyncio.sleep(min(0.02 * 2**self._num_breaks, MAX_PAUSE_S))
        self._num_breaks += 1
        self._parser = EventParser()
        self._reply = await self._client.open_events(self.pid, self._newest_seq)
        self._client.remember(self)
