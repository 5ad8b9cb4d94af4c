"""What programs do while they ask no core for anything: said beside the numbers of the host, where it has changed.

Programs are looked at when the host reports, and not when they begin to wait: a token costs nothing, and a wait that is
over by then is told to nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pie_engine.host.family import Child
from pie_engine.host.process import Process
from pie_engine.protocol.to_gateway import Activity, ActivityState

ALL_AGAIN_S = 10.0
"""After so long everything is said again: a gateway that has begun meanwhile knows nothing."""


class Doing(NamedTuple):
    """An `Activity` by the clock of the host."""

    state: ActivityState = ""
    why: str = ""
    until: float | None = None


def doing(process: Process) -> Doing:
    """What a process does now."""
    if process.guest is None:
        return Doing("starting", "its component is being compiled" if process.awaits_component else "")
    if process.is_queued or not process.is_waiting:
        return Doing("computing", "in a Python of its own, or stopped there" if process.job.native else "")
    waits_for = process.futures.pending
    if any(future.is_at_core for future in waits_for):
        return Doing()
    if names := sorted({future.wish.program for future in waits_for if isinstance(future, Child)}):
        return Doing("waiting: children", ", ".join(names), process.wake_at)
    if of_client := sorted({future.of_client for future in waits_for if future.of_client}):
        return Doing("waiting: client", " or ".join(of_client), process.wake_at)
    return Doing("waiting: timer", "", process.wake_at) if process.wake_at is not None else Doing()


class Activities:
    """Of all processes of a host, as its gateway knows them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: dict[str, Doing] = {}
        self._forget_at = clock() + ALL_AGAIN_S

    def news(self, processes: Mapping[str, Process]) -> dict[str, Activity]:
        """Of those that do something else than when this was asked before."""
        if self._clock() >= self._forget_at:
            self._told.clear()
            self._forget_at = self._clock() + ALL_AGAIN_S
        now = {pid: doing(process) for pid, process in processes.items()}
        changed = {pid: each for pid, each in now.items() if each != self._told.get(pid, Doing())}
        self._told = now
        return {pid: Activity(each.state, each.why, self._at(each.until)) for pid, each in changed.items()}

    def _at(self, until: float | None) -> float | None:
        """In seconds since the epoch."""
        return None if until is None else time.time() + until - self._clock()
