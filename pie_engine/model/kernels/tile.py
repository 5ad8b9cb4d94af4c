"""The one loop that matters: some rows of activations times one panel of weights, in registers.

A panel holds 32 outputs of a linear, input after input. Every accumulator adds its products in the order of the inputs,
whatever the number of rows is, so a row's result never depends on the rows beside it: the engine's results are the same
bit for bit in any batch.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pie_engine.model.kernels import vector
from pie_engine.model.kernels.blocks import SPAN, WIDTH
from pie_engine.model.kernels.kinds import NUM_VECTORS, AnyKind
from pie_engine.model.kernels.support import LANES
from pie_engine.model.kernels.vector import FLOAT, INT, VECTOR

UNPACKED_STRIDE = WIDTH * 4


def make_tile(num_rows: int, num_vectors: int, kind: AnyKind, *, adds: bool = False, ahead: int = 0) -> Any:
    """`tile(x, x_stride, w, w_stride, num_inputs, y, y_stride)`: y[num_rows, 16 * num_vectors] = x @ w.

    Addresses and strides are in bytes; x [num_rows, num_inputs] and y are fp32 with contiguous rows, w is
    [num_inputs, 16 * num_vectors] of `kind`, or a panel of blocks. With `adds` the product is added to what y holds.
    `ahead`: so many bytes behind what is multiplied memory is asked for.
    """

    @intrinsic
    def tile(_typing: Any, x: Any, x_stride: Any, w: Any, w_stride: Any, num_inputs: Any, y: Any, y_stride: Any) -> Any:
        return types.void(*[types.int64] * 7), _emit

    def _emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x, x_stride, w, w_stride, num_inputs, y, y_stride = arguments
        x_rows, y_rows = _rows(builder, x, x_stride, num_rows), _rows(builder, y, y_stride, num_rows)
        sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(num_vectors)] for _ in range(num_rows)]
        for y_row, row in zip(y_rows, sums, strict=True):
            for index, slot in enumerate(row):
                first = vector.load(builder, _vector(builder, y_row, index)) if adds else vector.constant(0.0)
                builder.store(first, slot)

        def add_products(index: Any, weights: list[Any]) -> None:
            offset = builder.mul(index, ir.Constant(INT, 4))
            for x_row, row in zip(x_rows, sums, strict=True):
                number = builder.load(builder.inttoptr(builder.add(x_row, offset), FLOAT.as_pointer()))
                value = vector.spread(builder, number)
                for weight, slot in zip(weights, row, strict=True):
                    builder.store(vector.operation(builder, "fma", value, weight, builder.load(slot)), slot)

        kind.each_input(builder, w, w_stride, num_inputs, num_vectors, add_products, ahead)
        for y_row, row in zip(y_rows, sums, strict=True):
            for index, slot in enumerate(row):
                vector.store(builder, builder.load(slot), _vector(builder, y_row, index))
        return context.get_dummy_value()

    return tile


def make_unpack(kind: AnyKind, ahead: int = 0) -> Any:
    """`unpack(w, w_stride, num_inputs, out)`: the weights [num_inputs, 32] of a panel as fp32."""

    @intrinsic
    def unpack(_typing: Any, w: Any, w_stride: Any, num_inputs: Any, out: Any) -> Any:
        return types.void(*[types.int64] * 4), _emit

    def _emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        w, w_stride, num_inputs, out = arguments

        def store(index: Any, weights: list[Any]) -> None:
            row = builder.add(out, builder.mul(index, ir.Constant(INT, UNPACKED_STRIDE)))
            for part, weight in enumerate(weights):
                vector.store(builder, weight, _vector(builder, row, part))

        kind.each_input(builder, w, w_stride, num_inputs, NUM_VECTORS, store, ahead)
        return context.get_dummy_value()

    return unpack


@intrinsic
def room_to_unpack(_typing: Any) -> Any:
    """The address of memory for `SPAN` inputs of a panel in fp32, which the calling function has until it returns."""

    def emit(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        with builder.goto_entry_block():
            room = builder.alloca(ir.ArrayType(FLOAT, SPAN * WIDTH))
        room.align = vector.CACHE_LINE
        return builder.ptrtoint(room, INT)

    return types.int64(), emit


def _rows(builder: Any, base: Any, stride: Any, num_rows: int) -> list[Any]:
    return [builder.add(base, builder.mul(stride, ir.Constant(INT, row))) for row in range(num_rows)]


def _vector(builder: Any, row: Any, index: int) -> Any:
    return builder.add(row, ir.Constant(INT, index * LANES * 4))
