"""A step's program while it is written: operations on tensors, turned into rows of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pie_engine.model.kernels import codes

_CHUNKS_PER_THREAD = 4
"""Chunks of an operation, so that one thread can take over what another does not get to."""
_CODE, _CHUNKS, _NUM_ROWS = 0, 1, 4
_SCRATCH, _SCRATCH_STRIDE, _MAX_PAGES = 13, 14, 15
_IN_PANELS = (codes.MATMUL, codes.EXPERTS)
_NUM_PANELS = 12
_SEGMENTS, _NUM_SEGMENTS = 10, 11


class Program:
    """Operations on buffers, in order. Written once; how many rows they work on is set before each run."""

    def __init__(self, num_threads: int) -> None:
        self._most_chunks = 1 if num_threads == 1 else num_threads * _CHUNKS_PER_THREAD
        self._rows: list[list[int]] = []
        self._factors: list[tuple[float, ...]] = []
        self._times: list[int] = []
        self._kept: list[Tensor] = []
        self._num_rows = 0
        self._attention: tuple[int, ...] = ()
        self.operations = np.zeros((0, codes.NUM_COLUMNS), np.int64)
        self.factors = np.zeros((0, codes.NUM_FACTORS), np.float32)

    def add(
        self, code: int, x: Tensor, *arguments: Tensor | int, factors: Sequence[float] = (), times: int = 1
    ) -> None:
        """Append an operation over the rows of `x`, of which there are so many `times` as there are tokens.

        A tensor among the arguments stands for its address.
        """
        tensors = [x, *(argument for argument in arguments if isinstance(argument, Tensor))]
        self._kept += tensors
        numbers = [argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments]
        row = [code, 1, x.data_ptr(), row_bytes(x), 0, *numbers]
        assert len(row) <= codes.NUM_COLUMNS, code
        self._rows.append(row + [0] * (codes.NUM_COLUMNS - len(row)))
        self._factors.append((*factors, 0.0, 0.0)[: codes.NUM_FACTORS])
        self._times.append(times)

    def seal(self) -> None:
        """No more operations come."""
        assert len(self._rows) <= codes.MAX_OPERATIONS, len(self._rows)
        self.operations = np.array(self._rows, np.int64)
        self.factors = np.array(self._factors, np.float32)
        which = self.operations[:, _CODE]
        self._all_times = np.array(self._times, np.int64)
        self._adapts = np.flatnonzero(which == codes.ADAPT)
        self._attends = np.flatnonzero(which == codes.ATTEND)
        in_panels = np.isin(which, _IN_PANELS)
        self._by_row = np.flatnonzero(~in_panels & ~np.isin(which, (codes.ATTEND, codes.GROUP)))
        self.operations[in_panels, _CHUNKS] = np.minimum(self.operations[in_panels, _NUM_PANELS], self._most_chunks)

    def set_num_rows(self, num_rows: int) -> None:
        """How many rows of the buffers the next runs work on."""
        if num_rows == self._num_rows:
            return
        self._num_rows = num_rows
        rows = self._all_times * num_rows
        self.operations[:, _NUM_ROWS] = rows
        self.operations[self._by_row, _CHUNKS] = np.minimum(rows[self._by_row], self._most_chunks)

    def move(self, old: int, new: int) -> None:
        """The next runs use the memory at `new`, which the caller keeps in place, for that at `old`."""
        self.operations[self.operations == old] = new
        self._kept = [tensor for tensor in self._kept if tensor.data_ptr() != old]

    def set_attention(self, num_items: int, scratch: Tensor, scratch_numbers: int, max_pages: int) -> None:
        """Pairs of a span and a head in the next run, and the room of each thread for their scores."""
        rows, setting = self._attends, (num_items, scratch.data_ptr(), scratch_numbers, max_pages)
        if setting == self._attention:
            return
        self._attention = setting
        self.operations[rows, _CHUNKS] = num_items
        self.operations[rows, _SCRATCH] = scratch.data_ptr()
        self.operations[rows, _SCRATCH_STRIDE] = scratch_numbers * 4
        self.operations[rows, _MAX_PAGES] = max_pages

    def set_adapters(self, segments: np.ndarray) -> None:
        """Which rows of the next run have an adapter: see `kernels.lora`. After `set_num_rows`."""
        rows, num_rows = self._adapts, int(segments[:, 1].sum())
        self._segments = segments
        self.operations[rows, _NUM_ROWS] = num_rows
        self.operations[rows, _CHUNKS] = min(num_rows, self._most_chunks)
        self.operations[rows, _SEGMENTS] = segments.ctypes.data
        self.operations[rows, _NUM_SEGMENTS] = len(segments)


def row_bytes(rows: Tensor) -> int:
    """From one row to the next."""
    return rows.stride(0) * rows.element_size()
