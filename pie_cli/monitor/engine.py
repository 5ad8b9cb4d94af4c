"""What the monitor asks of an engine beside its snapshots, and does to its programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pie_engine.errors import Unsupported
from pie_engine.protocol.http import ContextView
from pie_engine.protocol.stats import ContextState

if TYPE_CHECKING:
    from pie_client import PieClient


class Engine(Protocol):
    """The part of `PieClient` that the monitor uses. Everything raises `PieError`, also for want of a scope."""

    async def contexts_of(self, pid: str) -> list[ContextState]: ...

    async def events(self, pid: str, after: int = 0) -> list[dict[str, Any]]: ...

    async def contexts(self) -> list[ContextView]:
        """Those that are saved."""

    async def terminate(self, pid: str) -> None: ...

    async def pause(self, pid: str) -> None: ...

    async def resume(self, pid: str) -> None: ...

    async def bid(self, pid: str, credits: float | None) -> None:
        """Credits for a page and a step; None: what the program says, or the default."""

    async def endow(self, pid: str, credits: float) -> None:
        """Give it that many credits more."""


class Live:
    """A daemon."""

    def __init__(self, client: PieClient) -> None:
        self._client = client
        self.contexts_of = client.contexts_of
        self.events = client.events
        self.contexts = client.contexts
        self.pause, self.resume = client.pause, client.resume
        self.bid, self.endow = client.bid, client.endow

    async def terminate(self, pid: str) -> None:
        await self._client.request("DELETE", f"/v1/processes/{pid}", can_repeat=True)


class Recorded:
    """In place of an engine, while a recording is shown."""

    async def _refuse(self, *_: object) -> Any:
        raise Unsupported("this is a recording: there is no engine to ask", hint="`pie monitor` shows a running one")

    contexts_of = events = contexts = terminate = pause = resume = bid = endow = _refuse
