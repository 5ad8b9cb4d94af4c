"""Operations of a step's program, by number, and how a program lies in memory.

    operations  int64 [n, 16]: operation, number of chunks, arguments
    factors     fp32 [n, 2]: the arguments that are no integers

The arguments of each operation begin with x, x_stride, num_rows; those below follow, then come the factors. Tensors are
addresses, strides are in bytes, and rows of activations are contiguous fp32.
"""

from __future__ import annotations

NUM_COLUMNS = 16
NUM_FACTORS = 2
MAX_OPERATIONS = 8192

MATMUL, ADD_MATMUL = 0, 1
"""w, num_inputs, bias, y, y_stride, num_panels. y = x W + b, or y += x W + b."""
RMS_NORM = 2
"""size, scale, out, out_stride; eps"""
HEAD_NORM = 3
"""head_dim, scale [heads, head_dim], num_heads; eps. In place."""
ROTATE = 4
"""head_dim, turns, out, out_stride, num_heads, num_scaled; factor of the first num_scaled heads, of the others"""
WRITE_KV = 5
"""values, value_stride, key pages, value pages, kv_size. x are the keys."""
ATTEND = 6
"""key pages, value pages, group, num_kv_heads, head_dim, window, out, out_stride, scratch, scratch_stride, max_pages;
soft_cap. x are the queries."""
GATE_SILU, GATE_GELU = 7, 8
"""b, size, out, out_stride. out = activation(x) * b."""
ADD = 9
"""size, target, target_stride; scale. target += x * scale."""
