"""A process on the daemon, as a client sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pie_client.errors import EndOfEvents, Interrupted, explained
from pie_client.events import Arrival, Event
from pie_client.following import Following

if TYPE_CHECKING:
    from pie_client.client import PieClient
    from pie_client.transport import Reply


class Process:
    """Events in, messages out. Breaks of the connection are mended: no event is lost or comes twice."""

    def __init__(
        self, client: PieClient, pid: str, reply: Reply | None, after: int = 0, *, with_trace: bool = False
    ) -> None:
        self.pid = pid
        self.last_seq = after
        """Number of the newest event that `recv` has given; `attach(pid, after=last_seq)` goes on behind it."""
        self._client = client
        self._arrived: deque[Arrival] = deque()
        self._following = Following(partial(client.open_events, pid, with_trace=with_trace), reply, after)
        self._outcome: Arrival | None = None
        self._is_closed = False

    async def recv(self) -> tuple[Event, Any]:
        """The next event and its value. Raises `EndOfEvents` after `Return` or `Error`.

        It can be cancelled, for example by a timeout: the next call goes on where this one was.
        """
        while not self._arrived:
            if self._following.has_ended:
                raise EndOfEvents
            if self._is_closed:
                hint = f"`client.attach({self.pid!r}, after={self.last_seq})` goes on"
                raise explained(Interrupted(f"process {self.pid} is not followed any more: it was closed", hint=hint))
            self._arrived += await self._following.more()
            if self._following.has_ended:
                self._client.forget(self)
        arrival = self._arrived.popleft()
        self.last_seq = arrival.seq
        if arrival.event.is_terminal:
            self._outcome = arrival
        return arrival.event, arrival.value

    def __aiter__(self) -> Process:
        return self

    async def __anext__(self) -> tuple[Event, Any]:
        return await self.recv()

    async def messages(self) -> AsyncIterator[Any]:
        """What the program sends, as it comes; other events are passed over. Raises the error that it ends with."""
        async for event, value in self:
            if event is Event.Message:
                yield value
        await self.result()

    async def result(self) -> Any:
        """The value of `main`, past all events that are left; also again, and after the last one.

        Raises the error that the process ended with.
        """
        async for _ in self:
            pass
        if self._outcome is None:
            return await self._stored_result()
        if self._outcome.event is Event.Error:
            raise explained(self._outcome.value.raised())
        return self._outcome.value

    async def send(self, value: object) -> int:
        """A message to the program; returns its number when the daemon has it safely.

        Raises `InvalidInput` for what JSON does not have, naming it.
        """
        return await self._client.send(self.pid, value)

    async def terminate(self) -> None:
        """Ask it to end. It ends with the error `cancelled`, unless it was faster."""
        await self._client.request("DELETE", f"/v1/processes/{self.pid}", can_repeat=True)

    async def close(self) -> None:
        """Listen no more; whoever waits in `recv` gets `Interrupted`.

        A process launched with `on_disconnect="terminate"` is then ended.
        """
        self._is_closed = True
        self._client.forget(self)
        await self._following.close()

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _stored_result(self) -> Any:
        """Of a process that was attached behind its last event."""
        view = await self._client.inspect(self.pid)
        if view["state"] != "ended":
            raise Interrupted(f"the events of process {self.pid} ended before the process")
        async with await self._client.attach(self.pid, view["last_event"] - 1) as again:
            return await again.result()
