"""Low-rank adapters within a step: y += B A x for the rows that have one, each with its own.

    segments  int64 [n, 3]: neighbouring rows of one adapter: the first, how many, and the address of its sites
    sites     int64 [sites, 24]: of each place in the model: address of A, its ranks, numbers in a row of A, how many
              parts; then of each part: its first rank, how many ranks, address of B, its first output, how many outputs

A is [ranks, inputs] and B, of each part, [its ranks, its outputs], in the kind of the weights; ranks are filled up with
zeros to a multiple of 8, rows of both to whole vectors. A row's sums have an order of their own, whatever is beside it,
so its result is the same bit for bit in any batch.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pie_engine.model.kernels import vector
from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.kinds import Kind
from pie_engine.model.kernels.panel import make_panel
from pie_engine.model.kernels.support import LANES
from pie_engine.model.kernels.vector import FLOAT, INT, VECTOR, index_at

RANKS = 8
"""Ranks whose sums are made side by side: as many as a processor takes to have each in flight."""
SEGMENT_NUMBERS = 3
SITE_NUMBERS, PART_NUMBERS, MAX_PARTS = 24, 5, 4
_HEAD_NUMBERS = SITE_NUMBERS - PART_NUMBERS * MAX_PARTS
_SIGNATURE = "void(int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, int64)"


def make_adapt(kind: Kind) -> Any:
    """The kernel `adapt` (see `_adapt`) over matrices of this kind."""
    return compiled(
        _SIGNATURE,
        name=f"adapt_{kind.name}",
        dots=_make_dots(kind),
        add_wide=make_panel(2, kind, adds=True),
        add_narrow=make_panel(1, kind, adds=True),
        number_bytes=kind.num_bytes,
    )(_adapt)


def _adapt(x, x_stride, site, y, y_stride, reduced, reduced_stride, segments, num_segments, first, last):
    """y += B A x for rows `first … last - 1` of those in `segments`, counted through.

    x, y and `reduced` (room for A x) are addresses of fp32 rows, `…_stride` bytes apart; `site` is the row in `sites`.
    """
    num_before = 0
    for segment in range(num_segments):
        at = segments + segment * SEGMENT_NUMBERS * 8
        count, entry = index_at(at + 8), index_at(at + 16) + site * SITE_NUMBERS * 8
        begin, end = max(first - num_before, 0), min(last - num_before, count)
        top, num_rows = index_at(at) + begin, end - begin
        num_before += count
        a, num_ranks, num_inputs = index_at(entry), index_at(entry + 8), index_at(entry + 16)
        if num_rows <= 0 or a == 0:
            continue
        for row in range(top, top + num_rows):
            for rank in range(0, num_ranks, RANKS):
                to = reduced + row * reduced_stride + rank * 4
                dots(x + row * x_stride, a + rank * num_inputs * number_bytes, num_inputs, to)
        for part in range(index_at(entry + 24)):
            place = entry + (_HEAD_NUMBERS + part * PART_NUMBERS) * 8
            ranks = reduced + top * reduced_stride + index_at(place) * 4
            num_part_ranks, b = index_at(place + 8), index_at(place + 16)
            to, num_outputs = y + top * y_stride + index_at(place + 24) * 4, index_at(place + 32)
            b_stride = num_outputs * number_bytes
            column = 0
            while column + 2 * LANES <= num_outputs:
                here = b + column * number_bytes
                add_wide(num_rows, ranks, reduced_stride, here, b_stride, num_part_ranks, to + column * 4, y_stride)
                column += 2 * LANES
            if column < num_outputs:
                here = b + column * number_bytes
                add_narrow(num_rows, ranks, reduced_stride, here, b_stride, num_part_ranks, to + column * 4, y_stride)


def _make_dots(kind: Kind) -> Any:
    """A kernel `dots(x, a, size, out)`: out[8] = a[8, size] @ x[size]; `size` is in whole vectors."""

    @intrinsic
    def dots(_typing: Any, x: Any, a: Any, size: Any, out: Any) -> Any:
        return types.void(*[types.int64] * 4), _emit

    def _emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x, a, size, out = arguments
        sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(RANKS)]
        for slot in sums:
            builder.store(vector.constant(0.0), slot)
        row_bytes = builder.mul(size, ir.Constant(INT, kind.num_bytes))
        rows = [builder.add(a, builder.mul(row_bytes, ir.Constant(INT, rank))) for rank in range(RANKS)]
        with vector.each_vector(builder, size) as loop:
            value = vector.load(builder, vector.at(builder, x, loop.index))
            offset = builder.mul(loop.index, ir.Constant(INT, LANES * kind.num_bytes))
            for row, slot in zip(rows, sums, strict=True):
                weight = kind.load(builder, builder.add(row, offset))
                builder.store(vector.operation(builder, "fma", value, weight, builder.load(slot)), slot)
        for rank, slot in enumerate(sums):
            place = builder.add(out, ir.Constant(INT, rank * 4))
            builder.store(vector.fold(builder, "add", builder.load(slot)), builder.inttoptr(place, FLOAT.as_pointer()))
        return context.get_dummy_value()

    return dots
