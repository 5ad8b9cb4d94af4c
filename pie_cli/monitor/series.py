"""Histories of numbers in bounded memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from pie_cli.monitor.text import BARS

T = TypeVar("T")
SPANS_S = (0.5, 5.0, 15.0)
"""Seconds of a point at each zoom; with `NUM_POINTS` points that is 2 minutes, 20 minutes and an hour."""
SPAN_NAMES = ("2 min", "20 min", "1 h")
NUM_POINTS = 240


class Series:
    """Means over equal stretches of time, of which the newest are kept. Stretches in which nothing came are NaN."""

    __slots__ = ("_count", "_number", "_points", "_sum", "step_s")

    def __init__(self, step_s: float, num_points: int = NUM_POINTS) -> None:
        self.step_s = step_s
        self._points: deque[float] = deque(maxlen=num_points)
        self._number = -1
        self._sum = 0.0
        self._count = 0

    def add(self, at: float, value: float) -> None:
        number = int(at / self.step_s)
        if number != self._number:
            self._close(number)
        self._sum += value
        self._count += 1

    def points(self) -> list[float]:
        """The oldest first; the last one is the mean of the stretch that still goes on."""
        return [*self._points, self._sum / self._count] if self._count else list(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def _close(self, number: int) -> None:
        if self._count:
            self._points.append(self._sum / self._count)
            # A clock that was put back leaves no gap.
            gap = min(max(number - self._number - 1, 0), self._points.maxlen or 0)
            self._points.extend([math.nan] * gap)
        self._number, self._sum, self._count = number, 0.0, 0


class History:
    """A number at every zoom."""

    __slots__ = ("levels",)

    def __init__(self) -> None:
        self.levels = tuple(Series(step_s) for step_s in SPANS_S)

    def add(self, at: float, value: float) -> None:
        for level in self.levels:
            level.add(at, value)


class Marks(Generic[T]):
    """Two earlier values of something that counts, so that a rate is over the last one to two periods."""

    __slots__ = ("_newer", "_newer_at", "at", "period_s", "value")

    def __init__(self, at: float, value: T, period_s: float) -> None:
        self.period_s = period_s
        self.at = self._newer_at = at
        self.value = self._newer = value
        """The older one, and when it was."""

    def move(self, at: float, value: T) -> None:
        """Afterwards, so that the rate of now is against what was before."""
        if not 0 <= at - self._newer_at < self.period_s:
            self.at, self.value = self._newer_at, self._newer
            self._newer_at, self._newer = at, value


def sparkline(points: Sequence[float], width: int, top: float = 0.0) -> str:
    """One row of the newest `width` points; `top`: the value of a full bar, the highest point if 0."""
    return chart(points, width, 1, top)[0]


def chart(points: Sequence[float], width: int, height: int, top: float = 0.0) -> list[str]:
    """Bars of eighths of a cell, the newest at the right; what is not known is empty.

    A value above zero always shows.
    """
    shown = points[-width:]
    top = top or max((point for point in shown if point == point), default=0.0)
    most = 8 * height
    scale = most / top if top > 0 else 0.0
    # What is not known is no number, and so not above zero.
    eighths = [min(max(round(scale * point), 1), most) if point > 0 < scale else 0 for point in shown]
    lead = " " * (width - len(shown))
    rows = []
    for row in range(height - 1, -1, -1):
        # What each number of eighths looks like in this row.
        bars = BARS[0] * 8 * row + BARS + BARS[-1] * 8 * height
        rows.append(lead + "".join([bars[each] for each in eighths]))
    return rows
