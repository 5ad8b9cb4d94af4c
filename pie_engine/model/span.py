"""Rows of a step as models see them: tokens of the batch, and the pages that they are kept in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from pie_engine.kv.layout import Layout
from pie_engine.model.sight import Sight, sight_of


class Span(msgspec.Struct, gc=False):
    """One row of a step: tokens `first … first + length` of the batch, in slots from `start`, in `page_ids`."""

    first: int
    length: int
    start: int
    page_ids: Sequence[int]
    layout: Layout | None = None
    """None: slots are positions, and a token sees everything up to its own."""
    adapter: str = ""
    """The id of a loaded adapter."""

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def positions(self) -> Sequence[int]:
        """Of its tokens."""
        return range(self.start, self.end) if self.layout is None else self.layout.positions(self.start, self.end)

    @property
    def num_positions(self) -> int:
        """One more than the highest position that it knows of."""
        return self.end if self.layout is None else max(self.layout.positions(0, self.end)) + 1

    def token(self, index: int) -> Span:
        """One of its tokens, as the only one of a batch."""
        layout = None if self.layout is None else replace(self.layout, seen=[self.layout.seen[index]])
        return msgspec.structs.replace(self, first=0, length=1, start=self.start + index, layout=layout)

    def num_unseen_pages(self, window: int | None, page_size: int) -> int:
        """Pages at the start that not even the first token sees."""
        return 0 if window is None else max(self.start + 1 - window, 0) // page_size

    def sight(self, window: int | None, page_size: int) -> Sight:
        """What its tokens see by its layout."""
        assert self.layout is not None
        return sight_of(self.layout, self.start, self.end, self.page_ids, window, page_size)


def row_order(lengths: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The order of rows in the batch that a plan wants: single tokens by their position, then the chunks."""
    if max(lengths) == 1:
        return sorted(range(len(ends)), key=ends.__getitem__)
    return sorted(range(len(lengths)), key=lambda row: (lengths[row] > 1, ends[row] if lengths[row] == 1 else 0))
