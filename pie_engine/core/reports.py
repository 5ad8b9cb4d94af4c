"""When a core says how it is. Nobody looks: now and then; somebody looks: as often as that."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from pie_engine.core.device_use import DeviceMeter
from pie_engine.core.loop import Core
from pie_engine.ipc.memory import resident_bytes
from pie_engine.protocol.stats import DEFAULT_INTERVAL_MS
from pie_engine.protocol.to_gateway import CoreStats

EVERY_S = DEFAULT_INTERVAL_MS / 1000
MAX_SHARE = 0.0075
"""Of the core's time, to look at its processes: many of them are looked at less often than the core itself."""


class Reports:
    """The schedule, and what goes into each report."""

    def __init__(
        self,
        core: Core,
        meter: DeviceMeter | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """`spent`: processor time of this thread in seconds."""
        self.next_at = 0.0
        self._core, self._meter, self._clock, self._spent = core, meter, clock, spent
        self._every_s = EVERY_S
        self._began = clock()
        self._processes_at = 0.0
        self._rss_bytes = 0

    def begin(self) -> None:
        """There is another gateway, which knows nothing yet, and has not asked for anything."""
        self._every_s = EVERY_S
        self.next_at = self._processes_at = 0.0

    def set_interval(self, every_s: float) -> None:
        """From now on, until the gateway says otherwise."""
        self._every_s = every_s
        self.next_at = min(self.next_at, self._clock() + every_s)

    def take(self, send: Callable[[CoreStats], None]) -> None:
        """Send one if it is time, and tell the programs that wait why they do."""
        now = self._clock()
        if now < self.next_at:
            return
        self.next_at = now + self._every_s
        # A report that comes a little early counts: the next one may be a whole interval later.
        early_s = self._every_s / 2
        if now < self._processes_at - early_s:
            send(self._stats(with_processes=False))
            return
        began = self._spent()
        self._rss_bytes = resident_bytes()
        self._core.tell_waiting()
        send(self._stats(with_processes=True))
        self._processes_at = max(self._processes_at, now - early_s) + (self._spent() - began) / MAX_SHARE

    def _stats(self, *, with_processes: bool) -> CoreStats:
        meter = self._meter
        return msgspec.structs.replace(
            self._core.stats(with_processes=with_processes),
            uptime_s=self._clock() - self._began,
            cpu_s=time.process_time(),
            rss_bytes=self._rss_bytes,
            device_use=None if meter is None else meter.use,
            device_memory_bytes=0 if meter is None else meter.memory_bytes,
        )
