"""Matrix products over packed weights, `y = x W`: at the speed of the memory for few rows, of registers for many."""

from __future__ import annotations

from typing import Any

from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.panel import make_panel
from pie_engine.model.kernels.tile import NUM_VECTORS, WIDTH, Kind
from pie_engine.model.kernels.vector import add_row

ROW_BLOCK = 96
"""Rows that go over all panels before the next ones: their activations stay in the second-level cache."""


_SIGNATURE = "void(int64, int64, int64, int64, int64, int64, int64, int64, int64, int64)"


def make_matmul(kind: Kind, *, adds: bool) -> Any:
    """A kernel `matmul(x, x_stride, num_rows, w, num_inputs, bias, y, y_stride, first, last)`.

    Works on panels `first … last - 1` of `w` [panels, num_inputs, 32]; x, y and `bias` (its address, 0: none) are fp32
    with contiguous rows. All arguments are addresses, counts and strides in bytes. With `adds` the result is added to
    what y holds.
    """
    panel = make_panel(NUM_VECTORS, kind, adds=adds)
    name = f"matmul_{kind.name}{'_adds' if adds else ''}"
    return compiled(_SIGNATURE, name=name, panel=panel, w_stride=WIDTH * kind.num_bytes)(_matmul)


def _matmul(x, x_stride, num_rows, w, num_inputs, bias, y, y_stride, first, last):
    for start in range(0, num_rows, ROW_BLOCK):
        count = min(ROW_BLOCK, num_rows - start)
        x_rows, y_rows = x + start * x_stride, y + start * y_stride
        for index in range(first, last):
            weights, column = w + index * num_inputs * w_stride, index * WIDTH * 4
            panel(count, x_rows, x_stride, weights, w_stride, num_inputs, y_rows + column, y_stride)
            if bias:
                for row in range(count):
                    add_row(y_rows + row * y_stride + column, WIDTH, bias + column)
