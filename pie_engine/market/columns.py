"""Columns of integers that cost little to write one by one and nothing to compute with all at once."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
FIRST_CAPACITY = 16


class Column(array):  # type: ignore[type-arg]
    """Integers of 64 bits, 0 at first, to read and write one by one."""

    ints: Ints
    """All of them as a vector, the same memory. Let go of it, and of parts of it, before the next `grow`, which cannot
    move it."""

    def __new__(cls) -> Self:
        self = cast(Self, super().__new__(cls, "q", bytes(8 * FIRST_CAPACITY)))
        self.ints = np.frombuffer(self, np.int64)
        return self

    def grow(self) -> None:
        """Twice as many."""
        del self.ints
        self.frombytes(bytes(8 * len(self)))
        self.ints = np.frombuffer(self, np.int64)


class Slots:
    """Numbers from 0 on, the last one given back first, and columns with a place for each of them."""

    def __init__(self) -> None:
        self._columns: list[Column] = []
        self._free: list[int] = []
        self._num_used = 0
        self._capacity = FIRST_CAPACITY

    def column(self) -> Column:
        """A new one, which grows with the numbers."""
        column = Column()
        while len(column) < self._capacity:
            column.grow()
        self._columns.append(column)
        return column

    def __len__(self) -> int:
        return self._num_used - len(self._free)

    @property
    def end(self) -> int:
        """All numbers in use are below."""
        return self._num_used

    def take(self) -> int:
        """A number; its place in every column is 0."""
        if self._free:
            slot = self._free.pop()
            for each in self._columns:
                each[slot] = 0
            return slot
        slot = self._num_used
        if slot == self._capacity:
            self._capacity *= 2
            for each in self._columns:
                each.grow()
        self._num_used += 1
        return slot

    def give_back(self, slot: int) -> None:
        self._free.append(slot)


def sums(places: Ints, values: Ints, size: int) -> Ints:
    """Of the values at each of the places `0 … size - 1`; below 2⁵³, as they are added up in floating point."""
    return np.bincount(places, values, size).astype(np.int64)


def ints_of(rows: Sequence[int] | Ints) -> Ints:
    return rows if isinstance(rows, np.ndarray) else np.fromiter(rows, np.int64, len(rows))
