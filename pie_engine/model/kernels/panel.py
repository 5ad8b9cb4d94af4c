"""Any number of rows times one panel: the tile sizes, greedily."""

from __future__ import annotations

import functools
from typing import Any

from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.kinds import AnyKind
from pie_engine.model.kernels.tile import make_tile

_SIGNATURE = "void(int64, int64, int64, int64, int64, int64, int64, int64)"


@functools.cache
def make_panel(num_vectors: int, kind: AnyKind, *, adds: bool, ahead: int = 0) -> Any:
    """A kernel `panel(num_rows, x, x_stride, w, w_stride, num_inputs, y, y_stride)`; otherwise as `make_tile`."""
    tiles = {f"tile{rows}": make_tile(rows, num_vectors, kind, adds=adds, ahead=ahead) for rows in (1, 2, 4, 8, 12)}
    name = f"panel_{kind.name}_{num_vectors}{'_adds' if adds else ''}{f'_ahead_{ahead}' if ahead else ''}"
    return compiled(_SIGNATURE, name=name, **tiles)(_panel)


def _panel(num_rows, x, x_stride, w, w_stride, num_inputs, y, y_stride):
    # 24 rows go as 12 and 12, 16 as 8 and 8: fewer loads of the panel for more sums in registers.
    while num_rows >= 24 or num_rows == 12:
        tile12(x, x_stride, w, w_stride, num_inputs, y, y_stride)
        x += 12 * x_stride
        y += 12 * y_stride
        num_rows -= 12
    while num_rows >= 8:
        tile8(x, x_stride, w, w_stride, num_inputs, y, y_stride)
        x += 8 * x_stride
        y += 8 * y_stride
        num_rows -= 8
    if num_rows >= 4:
        tile4(x, x_stride, w, w_stride, num_inputs, y, y_stride)
        x += 4 * x_stride
        y += 4 * y_stride
        num_rows -= 4
    if num_rows >= 2:
        tile2(x, x_stride, w, w_stride, num_inputs, y, y_stride)
        x += 2 * x_stride
        y += 2 * y_stride
        num_rows -= 2
    if num_rows:
        tile1(x, x_stride, w, w_stride, num_inputs, y, y_stride)
