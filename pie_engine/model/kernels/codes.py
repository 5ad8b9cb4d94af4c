"""Operations of a step's program, by number, and how a program lies in memory.

    operations  int64 [n, 20]: operation, number of chunks, arguments
    factors     fp32 [n, 2]: the arguments that are no integers

The arguments of each operation begin with x, x_stride, num_rows; those below follow, then come the factors. Tensors are
addresses, strides are in bytes, and rows of activations are contiguous fp32. Elementwise operations work on whole
vectors, so rows are padded to a multiple of 16: with zeros where they are summed, otherwise with anything.
"""

from __future__ import annotations

NUM_COLUMNS = 20
NUM_FACTORS = 2
MAX_OPERATIONS = 8192

MATMUL = 1
"""w, bytes of a panel, num_inputs, bias, y, y_stride, adds, num_panels, kernel for this kind of weights.
y = x W + b, or y += x W + b if it adds."""
RMS_NORM = 2
"""size, scale, out, out_stride; eps, how many of the numbers the mean is of"""
HEAD_NORM = 3
"""head_dim, scale [heads, head_dim], num_heads; eps, how many of the numbers the mean is of. In place."""
ROTATE = 4
"""head_dim, turns, out, out_stride, num_heads, num_scaled; factor of the first num_scaled heads, of the others"""
WRITE_KV = 5
"""values, value_stride, key pages, value pages, kv_size. x are the keys."""
ATTEND = 6
"""key pages, value pages, group, num_kv_heads, head_dim, window, out, out_stride, scratch, scratch_stride, max_pages,
sinks [heads] or 0, column of the kind of window in a row of spans; soft_cap. x are the queries."""
GATE_SILU, GATE_GELU, GATE_GELU_TANH, GATE_CLAMPED = 7, 8, 9, 10
"""b, size, out, out_stride; alpha, limit. out = activation(x) * b; `GATE_CLAMPED` is gpt-oss's."""
ADD = 11
"""size, target, target_stride; scale. target += x * scale."""

ROUTE = 12
"""num_experts, num_chosen, chosen, shares, normalizes; factor. x are the router's logits."""
GROUP = 13
"""num_experts, num_chosen, sources, places, starts. x are the chosen experts, int64 [rows, num_chosen]."""
GATHER = 14
"""sources, size, out, out_stride. out[i] = x[sources[i]]."""
EXPERTS = 15
"""As `MATMUL`, with w and bias of the first expert; starts, num_experts, bytes of an expert's w.
Of each expert y = x W + b, for its rows."""
COMBINE = 16
"""places, shares, num_chosen, size, out, out_stride. out = the sum of what the chosen experts gave, by their shares."""
LAYER_NORM = 17
"""size, scale, bias, out, out_stride; eps, how many of the numbers the mean is of"""
ADAPT = 18
"""site, y, y_stride, reduced, reduced_stride, segments, num_segments. y += B A x, for the rows that have an adapter."""
