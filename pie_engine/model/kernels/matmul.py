"""Matrix products over packed weights, `y = x W`: at the speed of the memory for few rows, of registers for many.

Every operation of a program names its own kernel by address, so one program may hold weights of several kinds, and only
the kernels of kinds that a model has are ever compiled.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pie_engine.model.kernels.blocks import SPAN, WIDTH
from pie_engine.model.kernels.cache import mark_compiled, matmul_name
from pie_engine.model.kernels.jit import callback
from pie_engine.model.kernels.kinds import KINDS, NUM_VECTORS, PLAIN, BlockKind
from pie_engine.model.kernels.panel import make_panel
from pie_engine.model.kernels.tile import make_unpack, room_to_unpack
from pie_engine.model.kernels.vector import INT, add_row, clear_row

ROW_BLOCK = 96
"""Rows that go over all panels before the next ones: their activations stay in the second-level cache."""
FEW_ROWS, FEW_ROWS_OF_BLOCKS = 36, 12
"""For more rows than so many a part of the panel becomes fp32 first, once for all: of blocks for more than one tile."""
AHEAD = 2560
"""Bytes. The processor itself looks ahead too little to read memory while it multiplies."""

_ALWAYS = 1 << 40
_NUM_ARGUMENTS = 12


@functools.cache
def matmul_kernel(kind_name: str) -> Any:
    """The kernel for weights of this kind, whose `address` a program holds. See `_matmul` for its arguments."""
    kind, wide = KINDS[kind_name], PLAIN["float32"]
    kernel = callback(
        f"void({', '.join(['int64'] * _NUM_ARGUMENTS)})",
        name=matmul_name(kind_name),
        few=make_panel(NUM_VECTORS, kind, adds=True, ahead=AHEAD),
        many=make_panel(NUM_VECTORS, wide, adds=True),
        unpack=make_unpack(kind, AHEAD),
        few_rows=_ALWAYS if kind is wide else FEW_ROWS_OF_BLOCKS if isinstance(kind, BlockKind) else FEW_ROWS,
        span_bytes=kind.span_bytes,
        row_bytes=kind.span_bytes // SPAN,
        wide_bytes=wide.span_bytes // SPAN,
    )(_matmul)
    mark_compiled(matmul_name(kind_name))
    return kernel


@intrinsic
def run_matmul(
    _typing, kernel, x, x_stride, num_rows, w, panel_bytes, num_inputs, bias, y, y_stride, adds, first, last
):
    """Call the kernel at the address `kernel`."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [INT] * _NUM_ARGUMENTS)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * (1 + _NUM_ARGUMENTS)), emit


def _matmul(x, x_stride, num_rows, w, panel_bytes, num_inputs, bias, y, y_stride, adds, first, last):
    """y = x W + bias, or y += x W + bias if `adds`, for the outputs of panels `first … last - 1`.

    All are addresses, counts, and strides in bytes. `w` are panels, `panel_bytes` apart; x, y and `bias` (0: none) are
    fp32 with contiguous rows.
    """
    room = room_to_unpack()
    for start in range(0, num_rows, ROW_BLOCK):
        count = min(ROW_BLOCK, num_rows - start)
        x_rows, y_rows = x + start * x_stride, y + start * y_stride
        for index in range(first, last):
            panel, column = w + index * panel_bytes, index * WIDTH * 4
            for row in range(count):
                to = y_rows + row * y_stride + column
                if not adds:
                    clear_row(to, WIDTH)
                if bias:
                    add_row(to, WIDTH, bias + column)
            if count <= few_rows:
                few(count, x_rows, x_stride, panel, row_bytes, num_inputs, y_rows + column, y_stride)
                continue
            for begin in range(0, num_inputs, SPAN):
                size = min(SPAN, num_inputs - begin)
                unpack(panel + begin // SPAN * span_bytes, row_bytes, size, room)
                many(count, x_rows + begin * 4, x_stride, room, wide_bytes, size, y_rows + column, y_stride)
