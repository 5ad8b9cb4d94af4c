"""Who goes first in a step that may not hold all."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pie_engine.core.operation import Operation
from pie_engine.market.columns import Bools, Ints


class Ranking:
    """The operations that can run, those whose contexts have pages apart from the newcomers, which have none.

    A rank is the number of those with pages that go before. A newcomer goes before the one that has its rank.
    """

    def __init__(self, operations: Sequence[Operation], rows: Ints, places: Ints, has_pages: Bools) -> None:
        """`rows`: of the contexts of `operations`. `places` in both, whoever goes first first, and of each in that
        order whether it `has_pages`."""
        self._operations = operations
        self._holders = places[has_pages]
        self.rows: Ints = rows[self._holders]
        """Of those with pages, by rank."""
        self._lost: list[int] = []
        """Ranks of those that have lost their pages since, the first ones first."""
        self._ranks_by_row: Ints | None = None
        """If somebody has lost any."""
        self._num_seen = 0
        self._newcomers = places[~has_pages]
        self._has_pages = has_pages
        self._all_rows = rows

    def holders(self, ranks: Ints) -> list[Operation]:
        """Those with these ranks."""
        return list(map(self._operations.__getitem__, self._holders[ranks].tolist()))

    def newcomers(self) -> Iterator[Operation]:
        """Whoever goes first first; sets their ranks. There may be thousands that nobody has to look at."""
        places = (~self._has_pages).nonzero()[0]
        for newcomer in self._newcomers:
            operation = self._operations[newcomer]
            operation.rank = int(places[self._num_seen]) - self._num_seen
            self._num_seen += 1
            yield operation

    @property
    def unseen(self) -> Ints:
        """Rows of the newcomers that were not looked at."""
        return self._all_rows[self._newcomers[self._num_seen :]]

    def num_growing_before(self, operation: Operation, put_back: Sequence[Operation]) -> int:
        """Of those that had pages and go before it. Some have lost them meanwhile: `put_back`, which only grows."""
        for each in put_back[len(self._lost) :]:
            insort(self._lost, self._rank_of(each.context.row))
        return operation.rank - bisect_left(self._lost, operation.rank)

    def take_out(self, lost: Sequence[Operation], ready: list[Operation], ranks: Ints) -> tuple[list[Operation], Ints]:
        """Take those that have lost their pages out of `ready`, who have the ascending `ranks`. Returns them by rank,
        with these set, and the ranks of the others."""
        places: list[int] = []
        for operation in lost:
            operation.rank = self._rank_of(operation.context.row)
            place = int(ranks.searchsorted(operation.rank))
            if place < len(ready) and ready[place] is operation:
                places.append(place)
        if not places:
            return [], ranks
        places.sort(reverse=True)
        taken = [ready.pop(place) for place in places]
        stays = np.ones(len(ranks), bool)
        stays[places] = False
        return taken[::-1], ranks[stays]

    def _rank_of(self, row: int) -> int:
        """Behind all, if it had no pages."""
        if self._ranks_by_row is None:
            ranks = self._ranks_by_row = np.full(int(self.rows.max(initial=-1)) + 1, len(self.rows))
            ranks[self.rows] = np.arange(len(self.rows))
        return int(self._ranks_by_row[row]) if row < len(self._ranks_by_row) else len(self.rows)


@dataclass(slots=True)
class Ready:
    """Decodes that have room in their pages."""

    operations: list[Operation]
    """By rank, where there is a ranking."""
    rows: Ints
    """Of their contexts; empty without a ranking."""
    ranks: Ints
    """Empty without a ranking."""

    def num_among(self, others: Sequence[Operation], num_first: int) -> int:
        """How many of `others`, which are by rank, are among the first `num_first` of all together."""
        for number, operation in enumerate(others):
            last = num_first - number - 1
            if last < 0 or (last < len(self.ranks) and self.ranks[last] < operation.rank):
                return number
        return len(others)


def split(operations: Sequence[Operation]) -> tuple[list[Operation], list[Operation]]:
    """Decodes with room in their pages, for which nothing has to be looked up or reserved; and the others."""
    ready: list[Operation] = []
    others: list[Operation] = []
    for operation in operations:
        kv = operation.kv
        num_tokens = kv.num_tokens
        if num_tokens - kv.num_computed == 1 and num_tokens <= kv.writable_end:
            ready.append(operation)
        else:
            others.append(operation)
    return ready, others
