"""Single rows of packed weights of few bits, as fp32: what a step starts from."""

from __future__ import annotations

import functools
from typing import Any

from pie_engine.model.kernels.blocks import SPAN, WIDTH
from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.kinds import KINDS
from pie_engine.model.kernels.tile import UNPACKED_STRIDE, make_unpack, room_to_unpack
from pie_engine.model.kernels.vector import number_at, put_number


@functools.cache
def lookup_kernel(kind_name: str) -> Any:
    """The kernel `lookup` (see `_lookup`) for weights of this kind."""
    kind = KINDS[kind_name]
    return compiled(
        "void(int64, int64, int64, int64[::1], int64, int64)",
        name=f"lookup_{kind_name}",
        unpack=make_unpack(kind),
        span_bytes=kind.span_bytes,
        row_bytes=kind.span_bytes // SPAN,
    )(_lookup)


def _lookup(w, panel_bytes, num_inputs, ids, out, out_stride):
    """out[i, :num_inputs] = the weights of output `ids[i]`. `w` are panels, `panel_bytes` apart; `out` is fp32.

    A panel lies input after input, so that one output of it costs as much memory as all 32.
    """
    room = room_to_unpack()
    for row in range(len(ids)):
        panel, column = w + ids[row] // WIDTH * panel_bytes, room + ids[row] % WIDTH * 4
        for begin in range(0, num_inputs, SPAN):
            size = min(SPAN, num_inputs - begin)
            unpack(panel + begin // SPAN * span_bytes, row_bytes, size, room)
            to = out + row * out_stride + begin * 4
            for index in range(size):
                put_number(to + index * 4, number_at(column + index * UNPACKED_STRIDE))
