"""Whose turn it is: programs that are ready run one after another, and those that wait with a timeout come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pie_engine.host.process import Process
from pie_engine.host.timers import Timers


class Scheduler:
    """First come, first served; one that is preempted goes to the end of the line."""

    def __init__(self, clock: Callable[[], float], resume: Callable[[Process], None]) -> None:
        """`resume` lets a process run until it waits, ends or is preempted."""
        self.timers = Timers(clock)
        self._clock = clock
        self._resume = resume
        self._ready: deque[Process] = deque()

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    @property
    def seconds_left(self) -> float | None:
        """Until something is to be done without anything coming in; None: never."""
        return 0.0 if self._ready else self.timers.seconds_left

    def run(self, seconds: float) -> None:
        """What is due, then processes that are ready, for about so long."""
        self.timers.run_due()
        end = self._clock() + seconds
        while self._ready:
            process = self._ready.popleft()
            process.is_queued = False
            if process.pause.is_on:
                self.make_ready(process)
            elif not process.has_ended:
                self._resume(process)
            if self._clock() >= end:
                return

    def make_ready(self, process: Process) -> None:
        """Its turn comes; of one that is paused, after that."""
        if process.is_queued:
            return
        process.is_queued = True
        if process.pause.is_on:
            process.pause.put_off(lambda: self._ready.append(process))
        else:
            self._ready.append(process)

    def wake_after(self, process: Process, timeout_us: int) -> None:
        """End its wait then, unless something else does."""
        process.wake_at = self._clock() + timeout_us / 1e6
        # One timer serves many waits with the same deadline, as under `asyncio.timeout`.
        if process.alarm_at is None or process.alarm_at > process.wake_at:
            self._set_alarm(process, process.wake_at)

    def _set_alarm(self, process: Process, at: float) -> None:
        process.alarm_at = at
        self.timers.at(at, lambda: self._alarm(process, at))

    def _alarm(self, process: Process, at: float) -> None:
        if process.alarm_at != at:
            return  # an earlier one was set later
        process.alarm_at = None
        if process.wake_at is None or process.has_ended:
            return
        if process.wake_at <= self._clock():
            self.make_ready(process)
        else:
            self._set_alarm(process, process.wake_at)
