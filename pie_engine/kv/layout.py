"""Where the tokens of a sequence stand and what they see, where that is not simply everything before them.

A *slot* is a place in a page table: slot i is offset `i % page_size` of its page `i // page_size`. A *position* is what
the model is told about where a token stands. In a plain sequence they are the same number. They differ when pages have
been dropped from the table, or when a program says at which positions its tokens stand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

Range = tuple[int, int]
"""First and end."""
Spans = Sequence[Range]
"""Ranges in ascending order that neither overlap nor touch."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Of the slots up to the end of a row."""

    runs: Sequence[tuple[int, int]]
    """`(slot, position)`: from this slot to that of the next run, positions go up one by one. The first slot is 0."""
    seen: Sequence[Spans]
    """Of each token of the row: the slots whose keys and values it sees. The last one is its own."""

    def positions(self, first: int, end: int) -> list[int]:
        """Of the slots `first … end - 1`."""
        return [position for start, stop in self._cut(first, end) for position in range(start, stop)]

    def _cut(self, first: int, end: int) -> Iterator[Range]:
        """The positions of these slots as ranges."""
        index = bisect_right(self.runs, first, key=lambda run: run[0]) - 1
        while first < end:
            slot, position = self.runs[index]
            index += 1
            stop = min(self.runs[index][0], end) if index < len(self.runs) else end
            yield position + first - slot, position + stop - slot
            first = stop

    def check(self, start: int, end: int, max_position: int) -> None:
        """Assert that this is one of a row that writes the slots `start … end - 1`."""
        slots = [slot for slot, _ in self.runs]
        assert slots[:1] == [0], f"positions from slot {slots[:1]}"
        assert all(a < b for a, b in pairwise(slots)), f"runs at slots {slots}"
        for first, stop in self._cut(0, end):
            assert first >= 0, f"position {first}"
            assert stop <= max_position, f"{stop} positions"
        assert len(self.seen) == end - start, f"what {len(self.seen)} of {end - start} tokens see"
        for slot, spans in enumerate(self.seen, start):
            ends = [-1, *(edge for span in spans for edge in span)]
            assert all(a < b for a, b in pairwise(ends)), f"spans {spans}"
            assert ends[-1] == slot + 1, f"the token in slot {slot} sees {spans}"


def united(spans: Iterable[Range]) -> list[Range]:
    """The same numbers as spans."""
    found: list[Range] = []
    for first, end in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif first < end:
            found.append((first, end))
    return found


def without(spans: Spans, removed: Spans) -> list[Range]:
    """The numbers of `spans` that are not in `removed`."""
    found: list[Range] = []
    for first, end in spans:
        for gap_first, gap_end in removed:
            if gap_end <= first:
                continue
            if gap_first >= end:
                break
            if first < gap_first:
                found.append((first, gap_first))
            first = gap_end
        if first < end:
            found.append((first, end))
    return found


def common(left: Spans, right: Spans) -> list[Range]:
    """The numbers that are in both."""
    found: list[Range] = []
    index = 0
    for first, end in left:
        while index < len(right) and right[index][1] <= first:
            index += 1
        at = index
        while at < len(right) and right[at][0] < end:
            found.append((max(first, right[at][0]), min(end, right[at][1])))
            at += 1
    return found


def outside(spans: Spans, first: int) -> Iterator[int]:
    """The numbers from `first` on that are not in `spans`, without an end."""
    for start, stop in spans:
        yield from range(first, start)
        first = max(first, stop)
    yield from count(first)
