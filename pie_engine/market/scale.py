"""How strong each context is, as one sees it who compares them: grades, which take fewer bits than bids.

Most change only when all are reckoned anew. Whoever comes or changes its bid in between is put among the others.
"""

from __future__ import annotations

import numpy as np

from pie_engine.market.columns import Ints


class Scale:
    """By row of the book."""

    def __init__(self, values: Ints) -> None:
        """`values`: the larger, the stronger. They are changed in place."""
        self.values = values
        self._grades: Ints | None = None
        """If somebody has asked."""
        self._levels: Ints = values[:0]
        """The values that grades stand for, as negative numbers, which ascend with them."""

    @property
    def grades(self) -> Ints:
        """0 for the strongest, and the larger the weaker; the same for equals."""
        if self._grades is None:
            self._levels = _different(-self.values)
            self._grades = self._levels.searchsorted(-self.values)
        return self._grades

    def change(self, rows: Ints, values: Ints) -> None:
        """These rows, which may be new, have others now."""
        end = int(rows.max()) + 1
        self.values = _with_room(self.values, end)
        self.values[rows] = values
        if self._grades is not None:
            self._add_levels(_different(-values))
            self._grades = _with_room(self._grades, end)
            self._grades[rows] = self._levels.searchsorted(-values)

    def _add_levels(self, levels: Ints) -> None:
        """Grades of those that are weaker go up by one for each that was not there. What nobody has stays."""
        assert self._grades is not None
        known = self._levels
        new = levels[known.take(known.searchsorted(levels), mode="clip") != levels] if len(known) else levels
        if not len(new):
            return
        moved_to = np.arange(len(known)) + new.searchsorted(known)
        self._levels = np.empty(len(known) + len(new), np.int64)
        self._levels[moved_to] = known
        self._levels[known.searchsorted(new) + np.arange(len(new))] = new
        self._grades = moved_to[self._grades]


def _different(values: Ints) -> Ints:
    """Each once, ascending."""
    if len(values) and np.minimum.reduce(values) == np.maximum.reduce(values):
        return values[:1].copy()
    return np.unique(values)


def _with_room(column: Ints, end: int) -> Ints:
    """With 0 in the places that it has not got."""
    return column if end <= len(column) else np.concatenate((column, np.zeros(end - len(column), np.int64)))
