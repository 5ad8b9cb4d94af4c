"""Processes of one program as they begin and end, whoever launches them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pie_engine.protocol.http import ProcessView

if TYPE_CHECKING:
    from pie_client import PieClient

FIRST_LOOK = 20
"""Processes that are asked for at once, the newest ones; more where more have begun since."""
MAX_LOOK = 10_000


class Launches:
    """Looks again and again. No process is missed, however short, while the daemon keeps ended ones."""

    def __init__(self, client: PieClient, program: str) -> None:
        self._client = client
        self._program = program
        self._newest = 0.0
        """When the newest process of all that have been seen was launched."""
        self._known: set[str] = set()
        """Processes launched just then, which the next look shows again."""
        self.alive: dict[str, ProcessView] = {}

    async def begin(self) -> None:
        """Who is alive now is no news."""
        self._remember(msgspec.convert(await self._client.list_processes(with_ended=True, limit=1), list[ProcessView]))
        alive = msgspec.convert(await self._client.list_processes(), list[ProcessView])
        self.alive = {view.pid: view for view in alive if view.program == self._program}

    def _remember(self, listed: list[ProcessView]) -> None:
        if listed:
            self._newest = listed[0].created
            self._known = {view.pid for view in listed if view.created == self._newest}

    async def look(self) -> tuple[list[ProcessView], list[ProcessView]]:
        """Those that have begun since the last look, and those that have ended, each in order."""
        listed = await self._listed()
        begun = [view for view in reversed(listed) if view.created >= self._newest and view.pid not in self._known]
        self._remember(listed)
        mine = [view for view in begun if view.program == self._program]
        self.alive |= {view.pid: view for view in mine}
        ended = await self._ended(listed)
        for view in ended:
            del self.alive[view.pid]
        return mine, ended

    async def _listed(self) -> list[ProcessView]:
        """The newest processes of all programs, back to those that were seen before."""
        limit = FIRST_LOOK
        while True:
            found = await self._client.list_processes(with_ended=True, limit=limit)
            views = msgspec.convert(found, list[ProcessView])
            is_all = len(views) < limit or limit >= MAX_LOOK
            if is_all or views[-1].created < self._newest:
                return views
            limit *= 10

    async def _ended(self, listed: list[ProcessView]) -> list[ProcessView]:
        now = {view.pid: view for view in listed}
        ended = []
        for pid in self.alive:
            view = now.get(pid) or msgspec.convert(await self._client.inspect(pid), ProcessView)
            if view.state == "ended":
                ended.append(view)
        return sorted(ended, key=lambda view: view.ended or 0.0)
