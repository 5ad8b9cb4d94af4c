"""The one loop that matters: some rows of activations times one panel of weights, in registers.

A panel holds 32 outputs of a linear, input after input: [inputs, 32]. Every accumulator adds its products in the order
of the inputs, whatever the number of rows is, so a row's result never depends on the rows beside it: the engine's
results are the same bit for bit in any batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pie_engine.model.kernels import vector
from pie_engine.model.kernels.support import LANES
from pie_engine.model.kernels.vector import FLOAT, INT, VECTOR

NUM_VECTORS = 2
WIDTH = LANES * NUM_VECTORS
"""Outputs of a panel."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a weight lies in memory, and how a vector of weights becomes fp32."""

    name: str
    num_bytes: int
    load: Callable[[Any, Any], Any]
    """(builder, address) → vector of fp32."""


def _load_bf16(builder: Any, address: Any) -> Any:
    """bf16 is the upper half of fp32."""
    narrow, wide = (ir.VectorType(ir.IntType(bits), LANES) for bits in (16, 32))
    loaded = builder.load(builder.inttoptr(address, narrow.as_pointer()))
    loaded.align = 2
    return builder.bitcast(builder.shl(builder.zext(loaded, wide), ir.Constant(wide, [16] * LANES)), VECTOR)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("float32", 4, vector.load),
        Kind("bfloat16", 2, _load_bf16),
    )
}


def make_tile(num_rows: int, num_vectors: int, kind: Kind, *, adds: bool = False) -> Any:
    """`tile(x, x_stride, w, w_stride, num_inputs, y, y_stride)`: y[num_rows, 16 * num_vectors] = x @ w.

    Addresses and strides are in bytes; x [num_rows, num_inputs] and y are fp32 with contiguous rows, w is
    [num_inputs, 16 * num_vectors] of `kind`. With `adds` the product is added to what y holds.
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
        with cgutils.for_range(builder, num_inputs) as loop:
            at = builder.add(w, builder.mul(loop.index, w_stride))
            weights = [
                kind.load(builder, builder.add(at, ir.Constant(INT, index * LANES * kind.num_bytes)))
                for index in range(num_vectors)
            ]
            offset = builder.mul(loop.index, ir.Constant(INT, 4))
            for x_row, row in zip(x_rows, sums, strict=True):
                number = builder.load(builder.inttoptr(builder.add(x_row, offset), FLOAT.as_pointer()))
                value = vector.spread(builder, number)
                for weight, slot in zip(weights, row, strict=True):
                    builder.store(vector.operation(builder, "fma", value, weight, builder.load(slot)), slot)
        for y_row, row in zip(y_rows, sums, strict=True):
            for index, slot in enumerate(row):
                vector.store(builder, builder.load(slot), _vector(builder, y_row, index))
        return context.get_dummy_value()

    return tile


def _rows(builder: Any, base: Any, stride: Any, num_rows: int) -> list[Any]:
    return [builder.add(base, builder.mul(stride, ir.Constant(INT, row))) for row in range(num_rows)]


def _vector(builder: Any, row: Any, index: int) -> Any:
    return builder.add(row, ir.Constant(INT, index * LANES * 4))
