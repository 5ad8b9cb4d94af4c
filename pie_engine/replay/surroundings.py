"""The clock and the chance of a recording, for a program that may look at them more or less often than it did."""

from __future__ import annotations

import random
from collections.abc import Iterable

from pie_engine.protocol.recording import NO_READS, Call, End, Event, Fail, Reads

EXTRA_NS = 1000
"""How far the clock moves when it is looked at more often."""


class ReplayedSurroundings:
    """What the program reads lies between calls; after each, what it has not looked at is past."""

    def __init__(self, launched: float) -> None:
        """launched: seconds since the epoch."""
        self.num_extra = 0
        """Reads that the recording does not have."""
        self._passed_ns = 0
        """What the clock had moved at the end of what is past."""
        self._last_ns = self._recorded_ns = 0
        self._wall_ns = int(launched * 1e9)
        self._monotonic: list[int] = []
        self._wall: list[int] = []
        self._random = b""

    def go_on(self, passed: Iterable[Event], ahead: Iterable[Event]) -> None:
        """What was read up to the last of `passed` is past; the program may see what was read up to that of `ahead`."""
        self._passed_ns += sum(sum(_reads_of(entry).monotonic) for entry in passed)
        self._recorded_ns = self._passed_ns
        reads = [_reads_of(entry) for entry in ahead]
        # Reversed: they are taken from the end.
        self._monotonic = [ns for each in reads for ns in each.monotonic][::-1]
        self._wall = [ns for each in reads for ns in each.wall][::-1]
        self._random = b"".join(each.random for each in reads)

    def monotonic_ns(self) -> int:
        if self._monotonic:
            self._recorded_ns += self._monotonic.pop()
            self._last_ns = max(self._last_ns, self._recorded_ns)
        else:
            self._last_ns += self._extra()
        return self._last_ns

    def wall_ns(self) -> int:
        self._wall_ns = self._wall.pop() if self._wall else self._wall_ns + self._extra()
        return self._wall_ns

    def random_bytes(self, count: int) -> bytes:
        drawn, self._random = self._random[:count], self._random[count:]
        if len(drawn) < count:
            self._extra()
            drawn += random.Random(self.num_extra).randbytes(count - len(drawn))  # the same in every replay
        return drawn

    def _extra(self) -> int:
        self.num_extra += 1
        return EXTRA_NS


def _reads_of(entry: Event) -> Reads:
    return entry.reads if isinstance(entry, Call | Fail | End) else NO_READS
