"""A mixture of experts within a step: each row chooses some, and each expert multiplies the rows that have chosen it.

The pairs of a row and a chosen expert are counted row by row, and sorted by expert for the products: `places` of a pair
is where it stands then, `sources` of a place is its row, and `starts` is the first place of each expert. A pair's
product does not depend on the rows beside it, and a row adds up those of its experts in the order in which it chose
them, so its result is the same bit for bit in any batch.
"""

from __future__ import annotations

import numpy as np

from pie_engine.model.kernels.blocks import WIDTH
from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.matmul import run_matmul
from pie_engine.model.kernels.vector import (
    add_scaled,
    clear_row,
    index_at,
    number_at,
    put_index,
    put_number,
    scale_row,
    softmax,
)

_ONE, _ZERO, _LOWEST = np.float32(1), np.float32(0), np.float32(-np.inf)
_MANY = "int64, int64, int64, int64, int64"


@compiled(f"void({_MANY}, int64, float32)")
def route(logits, num_experts, num_chosen, chosen, shares, normalizes, factor):
    """The `num_chosen` experts of one row, the best first, and their shares: by a softmax over all `logits`.

    `normalizes`: the shares are scaled to sum to one. All are scaled by `factor`.
    """
    total = softmax(logits, 0, num_experts, num_experts, _ZERO, _LOWEST)
    taken = _ZERO
    for rank in range(num_chosen):
        best, most = 0, _LOWEST
        for expert in range(num_experts):
            weight = number_at(logits + expert * 4)
            if weight > most:
                best, most = expert, weight
        put_number(logits + best * 4, -_ONE)
        put_index(chosen + rank * 8, best)
        put_number(shares + rank * 4, most)
        taken += most
    scale = factor / (taken if normalizes else total)
    for rank in range(num_chosen):
        put_number(shares + rank * 4, number_at(shares + rank * 4) * scale)


@compiled(f"void({_MANY}, int64, int64)")
def group(chosen, num_rows, num_experts, num_chosen, sources, places, starts):
    """Sort the pairs by expert: writes `sources` and `places` [num_rows * num_chosen], `starts` [num_experts + 1]."""
    for expert in range(num_experts + 1):
        put_index(starts + expert * 8, 0)
    for pair in range(num_rows * num_chosen):
        slot = starts + (index_at(chosen + pair * 8) + 1) * 8
        put_index(slot, index_at(slot) + 1)
    for expert in range(num_experts):
        slot = starts + (expert + 1) * 8
        put_index(slot, index_at(slot) + index_at(slot - 8))
    # Each start moves to its end, which is the next one's start.
    for pair in range(num_rows * num_chosen):
        slot = starts + index_at(chosen + pair * 8) * 8
        place = index_at(slot)
        put_index(slot, place + 1)
        put_index(places + pair * 8, place)
        put_index(sources + place * 8, pair // num_chosen)
    for expert in range(num_experts, 0, -1):
        put_index(starts + expert * 8, index_at(starts + (expert - 1) * 8))
    put_index(starts, 0)


@compiled(f"void({_MANY}, int64, int64, int64)")
def gather(x, x_stride, sources, size, out, out_stride, first, last):
    """Rows `first … last - 1` of out: those of x that `sources` names."""
    for row in range(first, last):
        scale_row(x + index_at(sources + row * 8) * x_stride, size, _ONE, out + row * out_stride)


@compiled(f"void({_MANY}, int64, int64)")
def combine(y, y_stride, places, shares, num_chosen, size, out):
    """out[size] of one row: the sum of its experts' rows in y, times their shares."""
    clear_row(out, size)
    for rank in range(num_chosen):
        add_scaled(y + index_at(places + rank * 8) * y_stride, size, number_at(shares + rank * 4), out)


@compiled(f"void({_MANY}, {_MANY}, {_MANY})")
def experts(
    kernel, x, x_stride, w, panel_bytes, num_inputs, bias, y, y_stride, num_panels, starts, num_experts, expert_bytes,
    part, num_parts,
):  # fmt: skip
    """Of each expert y = x W + b for the rows from its start to the next one's; see `matmul` for the arguments.

    Weights of the experts are `expert_bytes` apart, biases [num_panels * 32]. Of each expert that has rows this does a
    `num_parts`-th of the panels, another one of each, so that all parts have about as much to do.
    """
    busy = 0
    for expert in range(num_experts):
        first_row, end_row = index_at(starts + expert * 8), index_at(starts + expert * 8 + 8)
        if first_row == end_row:
            continue
        share = (part + busy) % num_parts
        busy += 1
        first, last = num_panels * share // num_parts, num_panels * (share + 1) // num_parts
        expert_bias = bias + expert * num_panels * WIDTH * 4 if bias else 0
        run_matmul(
            kernel, x + first_row * x_stride, x_stride, end_row - first_row, w + expert * expert_bytes, panel_bytes,
            num_inputs, expert_bias, y + first_row * y_stride, y_stride, 0, first, last,
        )  # fmt: skip
