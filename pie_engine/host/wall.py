"""The time that a process may take from its beginning to its end. Pauses do not count."""

from __future__ import annotations

from collections.abc import Callable

from pie_engine.errors import ErrorInfo, LimitExceeded
from pie_engine.host.process import Process
from pie_engine.host.timers import Timers


class WallLimits:
    """Ends processes whose time is over."""

    def __init__(self, timers: Timers, clock: Callable[[], float], end: Callable[[Process, ErrorInfo], None]) -> None:
        """`end` does nothing for a process that has ended."""
        self._timers = timers
        self._clock = clock
        self._end = end

    def begin(self, process: Process) -> None:
        """From now on; to compile a component is not its own time."""
        wall_s = process.limits.wall_s or process.job.wall_s
        if wall_s:
            self._check(process, wall_s, self._clock() + wall_s)

    def _check(self, process: Process, wall_s: float, ends_at: float) -> None:
        seconds_left = ends_at + process.pause.seconds - self._clock()

        def check() -> None:
            self._check(process, wall_s, ends_at)

        if process.pause.is_on:
            process.pause.put_off(check)
        elif seconds_left > 0:
            self._timers.after(seconds_left, check)
        else:
            self._end(process, _exceeded(process, wall_s))


def _exceeded(process: Process, wall_s: float) -> ErrorInfo:
    message = f"the program ran for more than {wall_s:g} s"
    if wall_s == process.limits.wall_s:
        return process.limits.exceeded("wall_s", message).info
    return LimitExceeded.of("wall_limit", message, hint="importing it must not wait for anything").info
