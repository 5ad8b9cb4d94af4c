"""Columns of integers that cost little to write one by one and nothing to compute with all at once."""

from __future__ import annotations

from array import array
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Column: TypeAlias = "array[int]"
FIRST_CAPACITY = 16


def column() -> Column:
    return array("q", bytes(8 * FIRST_CAPACITY))


def vector(values: Column) -> Ints:
    """The column itself, to read and to write. Let go of it before the next `grow`, which cannot move it."""
    return np.frombuffer(values, np.int64)


class Slots:
    """Numbers from 0 on, the lowest free one first; all columns that are given grow with them."""

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self._free: list[int] = []
        self._num_used = 0

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
        if slot == len(self._columns[0]):
            for each in self._columns:
                each.frombytes(bytes(8 * slot))
        self._num_used += 1
        return slot

    def give_back(self, slot: int) -> None:
        self._free.append(slot)
