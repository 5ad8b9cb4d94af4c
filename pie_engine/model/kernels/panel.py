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
    return _made(num_vectors, kind, adds=adds, ahead=ahead, sizes=(1, 2, 4, 8, 12), rest=_halves)


@functools.cache
def make_short_panel(num_vectors: int, kind: AnyKind, *, adds: bool) -> Any:
    """`make_panel` where few rows meet few inputs, as the queries of a group do: a tile of its own for each number."""
    return _made(num_vectors, kind, adds=adds, ahead=0, sizes=(*range(1, 9), 12), rest=_one_tile)


def _made(num_vectors: int, kind: AnyKind, *, adds: bool, ahead: int, sizes: tuple[int, ...], rest: Any) -> Any:
    tiles = {f"tile{rows}": make_tile(rows, num_vectors, kind, adds=adds, ahead=ahead) for rows in sizes}
    name = (
        f"panel_{kind.name}_{num_vectors}{'_adds' if adds else ''}{f'_ahead_{ahead}' if ahead else ''}{rest.__name__}"
    )
    last = compiled(_SIGNATURE, name=f"last_of_{name}", **tiles)(rest)
    return compiled(_SIGNATURE, name=name, tile12=tiles["tile12"], tile8=tiles["tile8"], rest=last)(_panel)


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
    if num_rows:
        rest(num_rows, x, x_stride, w, w_stride, num_inputs, y, y_stride)


def _halves(num_rows, x, x_stride, w, w_stride, num_inputs, y, y_stride):
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


def _one_tile(num_rows, x, x_stride, w, w_stride, num_inputs, y, y_stride):
    if num_rows == 1:
        tile1(x, x_stride, w, w_stride, num_inputs, y, y_stride)
    elif num_rows == 2:
        tile2(x, x_stride, w, w_stride, num_inputs, y, y_stride)
    elif num_rows == 3:
        tile3(x, x_stride, w, w_stride, num_inputs, y, y_stride)
    elif num_rows == 4:
        tile4(x, x_stride, w, w_stride, num_inputs, y, y_stride)
    elif num_rows == 5:
        tile5(x, x_stride, w, w_stride, num_inputs, y, y_stride)
    elif num_rows == 6:
        tile6(x, x_stride, w, w_stride, num_inputs, y, y_stride)
    else:
        tile7(x, x_stride, w, w_stride, num_inputs, y, y_stride)
