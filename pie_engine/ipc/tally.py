"""How often something took how long."""

from __future__ import annotations

from bisect import bisect_left

from pie_engine.protocol.stats import LATENCY_BOUNDS_S, Histogram


class Tally:
    """Counts seconds into the buckets of `LATENCY_BOUNDS_S`."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self._sum += seconds

    @property
    def histogram(self) -> Histogram:
        return Histogram(LATENCY_BOUNDS_S, tuple(self._counts), self._sum)
