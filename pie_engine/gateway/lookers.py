"""Who looks at the engine now, and how closely the cores have to say how they are for that."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

from pie_engine.gateway.exchange import Exchange
from pie_engine.protocol.stats import DEFAULT_INTERVAL_MS
from pie_engine.protocol.to_core import ReportEvery

DEFAULT_S = DEFAULT_INTERVAL_MS / 1000
"""How often cores report by themselves."""


class Lookers:
    """Cores report as often as the most impatient one looks. Nobody looks: nothing is said to them, nor made here."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._intervals: Counter[float] = Counter()
        self._every_s = DEFAULT_S
        self._is_over = asyncio.Event()
        exchange.numbers.on_new = self._tell_new

    @contextlib.contextmanager
    def looking(self, every_s: float) -> Iterator[None]:
        """Somebody looks that often."""
        self._intervals[every_s] += 1
        self._settle()
        try:
            yield
        finally:
            self._intervals[every_s] -= 1
            self._intervals += Counter()
            self._settle()

    async def wait(self, seconds: float) -> bool:
        """Whether one may still look after that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), seconds)
        return not self._is_over.is_set()

    def close(self) -> None:
        """The gateway ends: nobody waits for more."""
        self._is_over.set()

    def _settle(self) -> None:
        every_s = min((DEFAULT_S, *self._intervals))
        if every_s != self._every_s:
            self._every_s = every_s
            for member in self._exchange.members:
                if member.role == "core" and member.is_ready:
                    self._exchange.send(member.boot_id, [ReportEvery(every_s)])

    def _tell_new(self, core_boot: str) -> None:
        if self._every_s != DEFAULT_S:
            self._exchange.send(core_boot, [ReportEvery(self._every_s)])
