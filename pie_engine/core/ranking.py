"""Who goes first in a step that may not hold all."""

from __future__ import annotations

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
        held = places[has_pages]
        self.holders: list[Operation] = list(map(operations.__getitem__, held.tolist()))
        """By rank."""
        self.rows: Ints = rows[held]
        """Of the holders."""
        self._operations = operations
        self._num_seen = 0
        self._newcomers = self._ranks = self._newcomer_rows = held[:0]
        if len(held) < len(places):
            are_new = np.flatnonzero(~has_pages)
            self._newcomers, self._ranks = places[are_new], are_new - np.arange(len(are_new))
            self._newcomer_rows = rows[self._newcomers]

    def newcomers(self) -> Iterator[Operation]:
        """Whoever goes first first; sets their ranks. There may be thousands that nobody has to look at."""
        for place, rank in zip(self._newcomers, self._ranks, strict=True):
            self._num_seen += 1
            operation = self._operations[place]
            operation.rank = int(rank)
            yield operation

    @property
    def unseen(self) -> Ints:
        """Rows of the newcomers that were not looked at."""
        return self._newcomer_rows[self._num_seen :]

    def num_growing_before(self, operation: Operation, put_back: Sequence[Operation]) -> int:
        """Of those that had pages and go before it. Some have lost them meanwhile."""
        if not put_back:
            return operation.rank
        before = self.holders[: operation.rank]
        return len(before) - sum(each in before for each in put_back)


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
        if not others:
            return 0
        before = self.ranks.searchsorted([operation.rank for operation in others])
        return int(np.count_nonzero(before + np.arange(len(others)) < num_first))
