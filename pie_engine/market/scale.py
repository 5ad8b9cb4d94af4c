"""How strong each context is, as one sees it who compares them: grades, which take fewer bits than bids.

Most change only when all are reckoned anew. Whoever comes or changes its bid in between is put among the others.
"""

from __future__ import annotations

import numpy as np

from pie_engine.market.columns import Ints


class Scale:
    """By row of the book; of several values of each row, which are compared with one another, in the last dimension."""

    def __init__(self, values: Ints) -> None:
        """`values`: the larger, the stronger. They are changed in place."""
        self.values = values
        self._grades: Ints | None = None
        """If somebody has asked."""
        self._levels: Ints = np.zeros(0, np.int64)
        """The values that grades stand for, as negative numbers, which ascend with them."""

    @property
    def grades(self) -> Ints:
        """0 for the strongest, and the larger the weaker; the same for equals."""
        if self._grades is None:
            self._levels = _different(-self.values)
            self._grades = self._levels.searchsorted(-self.values)
        return self._grades

    @property
    def grade_of_nothing(self) -> int:
        """Of those whose value is 0, if there were any."""
        return int(self._levels.searchsorted(0))

    def change(self, rows: Ints, values: Ints) -> None:
        """These rows, which may be new, have others now."""
        end = int(rows[rows.argmax()]) + 1
        self.values = _with_room(self.values, end)
        self.values[..., rows] = values
        if self._grades is not None:
            grades = self._graded(-values)
            self._grades = _with_room(self._grades, end)
            self._grades[..., rows] = grades

    def _graded(self, levels: Ints) -> Ints:
        """Grades of these, which may be new. What nobody has any more stays."""
        grades = self._levels.searchsorted(levels)
        is_new = self._levels.take(grades, mode="clip") != levels if len(self._levels) else np.ones(levels.shape, bool)
        if not np.count_nonzero(is_new):
            return grades
        self._add_levels(_different(levels[is_new]))
        return self._levels.searchsorted(levels)

    def _add_levels(self, new: Ints) -> None:
        """Grades of those that are weaker go up by one for each."""
        assert self._grades is not None
        known = self._levels
        moved_to = np.arange(len(known)) + new.searchsorted(known)
        self._levels = np.empty(len(known) + len(new), np.int64)
        self._levels[moved_to] = known
        self._levels[known.searchsorted(new) + np.arange(len(new))] = new
        self._grades = moved_to[self._grades]


def _different(values: Ints) -> Ints:
    """Each once, ascending."""
    ordered = np.sort(values, axis=None)
    is_first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


def _with_room(column: Ints, end: int) -> Ints:
    """With 0 in the places that it has not got."""
    num_more = end - column.shape[-1]
    return column if num_more <= 0 else np.concatenate((column, np.zeros((*column.shape[:-1], num_more), np.int64)), -1)
