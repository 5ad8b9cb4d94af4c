"""Things to do later: waits that time out, grace periods, wall limits."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Timers:
    """Callbacks by time. One that has become pointless is not removed: it finds that out itself."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self._clock() + seconds, action)

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._sequence), action))

    def run_due(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            _, _, action = heapq.heappop(self._heap)
            action()

    @property
    def seconds_left(self) -> float | None:
        """Until the next one; None: there is none."""
        return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None
