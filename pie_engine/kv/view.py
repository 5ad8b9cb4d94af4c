"""What the tokens of a context see of one another, and where they stand, when it is not simply everything before them.

All of it is a function of the token's number and of what was asked of the context, never of what has been computed, so
that KV which was given up can be computed again, and is the same.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pie_engine.kv.layout import Range, Spans, common, united, without


class Drop(NamedTuple):
    """Tokens from number `since` on do not see the tokens of `gone`: all that have been dropped up to then."""

    since: int
    gone: tuple[Range, ...]


class Window(NamedTuple):
    """Tokens from number `since` on see the first `sinks` tokens and the last `size`, themselves included."""

    since: int
    size: int
    sinks: int

    def hidden(self, number: int) -> list[Range]:
        """What token `number` does not see."""
        end = number + 1 - self.size
        return [(self.sinks, end)] if self.sinks < end else []


@dataclass(frozen=True, slots=True)
class View:
    """Of one context; every change makes another one, so forks share it."""

    drops: tuple[Drop, ...] = ()
    """In the order of `since`; the last one that counts says it all."""
    windows: tuple[Window, ...] = ()
    """In the order of `since`; each counts up to the next."""
    jumps: tuple[tuple[int, int], ...] = ()
    """`(number, position)`: from this token on, positions go up one by one."""
    masks: Mapping[int, Spans] = field(default_factory=dict)
    """What single tokens see, themselves included, if it is not everything before them."""

    @property
    def is_bounded(self) -> bool:
        """Whether tokens are out of sight for good."""
        return bool(self.drops or self.windows)

    # Changes.

    def dropped(self, since: int, first: int, end: int) -> View:
        before = self.drops[-1].gone if self.drops else ()
        return replace(self, drops=(*self.drops, Drop(since, tuple(united([*before, (first, end)])))))

    def within(self, since: int, size: int, sinks: int) -> View:
        """With another window from `since` on. What the one before had hidden stays hidden."""
        view = self
        if self.windows:
            last = self.windows[-1]
            if (last.size, last.sinks) == (size, sinks):
                return self
            for first, end in last.hidden(since):
                view = view.dropped(since, first, end)
        return replace(view, windows=(*self.windows, Window(since, size, sinks)))

    def placed(self, first: int, positions: Sequence[int], masks: Sequence[Spans]) -> View:
        """Tokens from `first` on, the last ones there are, stand at `positions` and see `masks`; empty: as usual."""
        jumps, masked = list(self.jumps), dict(self.masks)
        for number, position in enumerate(positions, first):
            usual = jumps[-1][1] + number - jumps[-1][0] if jumps else number
            if position != usual:
                jumps.append((number, position))
        for number, spans in enumerate(masks, first):
            if list(spans) != [(0, number + 1)]:
                masked[number] = spans
        return replace(self, jumps=tuple(jumps), masks=masked)

    def clips(self, length: int) -> bool:
        """Whether the last of the first `length` tokens would see less than it has, were the others taken back."""
        return self._dropped(length - 1) != self._left(length)

    def cut(self, length: int) -> View | None:
        """Of the first `length` tokens: what was dropped stays so, a later window has never been. None: plain."""
        last, left = max(length - 1, 0), self._left(length)
        drops = tuple(drop for drop in self.drops if drop.since < last)
        view = View(
            (*drops, Drop(last, left)) if left else drops,
            tuple(window for window in self.windows if window.since < length),
            tuple(jump for jump in self.jumps if jump[0] < length),
            {number: spans for number, spans in self.masks.items() if number < length},
        )
        return None if view == View() else view

    # Questions.

    def positions(self, first: int, end: int) -> list[int]:
        """Of the tokens `first … end - 1`."""
        return [position for start, stop in self.runs(first, end) for position in range(start, stop)]

    def runs(self, first: int, end: int) -> Iterator[Range]:
        """The positions of these tokens as ranges."""
        index = bisect_right(self.jumps, first, key=lambda jump: jump[0]) - 1
        while first < end:
            number, position = self.jumps[index] if index >= 0 else (0, 0)
            index += 1
            stop = min(self.jumps[index][0], end) if index < len(self.jumps) else end
            yield position + first - number, position + stop - number
            first = stop

    def hidden_from(self, number: int) -> list[Range]:
        """What no token from `number` on sees. It sees itself, also where it has been dropped."""
        dropped, window = self._dropped(number), self._window(number)
        hidden = [*dropped] if window is None else united([*dropped, *window.hidden(number)])
        return without(hidden, [(number, number + 1)]) if dropped and dropped[-1][1] > number else hidden

    def seen(self, first: int, end: int) -> Iterator[list[Range]]:
        """What each of the tokens `first … end - 1` sees, itself included."""
        for number in range(first, end):
            hidden = self.hidden_from(number)
            spans = self.masks.get(number) or [(0, number + 1)]
            yield united([*without(spans, hidden), (number, number + 1)]) if hidden else list(spans)

    def identity(self, first: int, end: int) -> bytes:
        """What the KV of these tokens depends on beside the tokens; empty: nothing."""
        seen, runs = list(self.seen(first, end)), list(self.runs(first, end))
        if runs == [(first, end)] and all(spans == [(0, number + 1)] for number, spans in enumerate(seen, first)):
            return b""
        parts = [len(runs), *(edge for run in runs for edge in run)]
        for spans in seen:
            parts += [len(spans), *(edge for span in spans for edge in span)]
        return struct.pack(f"<{len(parts)}Q", *parts)

    def _left(self, length: int) -> tuple[Range, ...]:
        """What has been dropped of the first `length` tokens."""
        return tuple(common(self.drops[-1].gone, [(0, length)])) if self.drops else ()

    def _dropped(self, number: int) -> tuple[Range, ...]:
        """What token `number` does not see because it was dropped."""
        index = bisect_right(self.drops, number, key=lambda drop: drop.since) - 1
        return self.drops[index].gone if index >= 0 else ()

    def _window(self, number: int) -> Window | None:
        index = bisect_right(self.windows, number, key=lambda window: window.since) - 1
        return self.windows[index] if index >= 0 else None
