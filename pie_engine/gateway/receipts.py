"""What hosts are told about events that they have sent."""

from __future__ import annotations

import asyncio

from pie_engine.gateway.turn import Turn
from pie_engine.protocol.to_host import EventsSeen, EventsStored

INTERVAL_S = 0.005
"""Nobody waits for `EventsStored`, and only `session.drain` for `EventsSeen`, while each frame would wake a host that
has better things to do."""


class Receipts:
    """Collects them, and sends the newest of each kind and process now and then."""

    def __init__(self, turn: Turn) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn = turn
        self._newest: dict[tuple[str, str, type[EventsStored | EventsSeen]], int] = {}

    def stored(self, host_boot: str, pid: str, seq: int) -> None:
        self._add((host_boot, pid, EventsStored), seq)

    def seen(self, host_boot: str, pid: str, seq: int) -> None:
        self._add((host_boot, pid, EventsSeen), seq)

    def _add(self, key: tuple[str, str, type[EventsStored | EventsSeen]], seq: int) -> None:
        if not self._newest:
            self._loop.call_later(INTERVAL_S, self._send)
        self._newest[key] = max(seq, self._newest.get(key, 0))

    def _send(self) -> None:
        newest, self._newest = self._newest, {}
        for (host_boot, pid, kind), seq in newest.items():
            self._turn.say(host_boot, kind(pid, seq))
