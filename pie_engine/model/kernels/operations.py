"""A step as a program: operations one after another, each cut into chunks that any thread may take.

    operations  int64 [n, 16]: operation, number of chunks, arguments
    factors     fp32 [n, 2]: the arguments that are no integers
    words       int64 [n, 8]: of each operation the chunks that nobody has taken, and those that are not done

A thread takes a chunk of the current operation, and goes on to the next operation when all chunks of this one are done.
So nobody waits for a thread that the operating system has put aside, unless it holds a chunk, and a thread that comes
late, or never, changes nothing. What a chunk computes does not depend on who does it.

Words carry the number of the step in their upper half, so that a thread that wakes up in a later step can take nothing
by mistake; a program is written anew only when all its chunks are done, and read only by who holds one.
"""

from __future__ import annotations

from pie_engine.model.kernels import atomic
from pie_engine.model.kernels.attention import attend, write
from pie_engine.model.kernels.cache import mark_compiled
from pie_engine.model.kernels.elementwise import GELU_TANH, SILU, make_gate, rms_norm, rotate
from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.matmul import make_matmul
from pie_engine.model.kernels.tile import KINDS
from pie_engine.model.kernels.vector import add_scaled

NUM_COLUMNS = 16
MAX_OPERATIONS = 8192
MAX_STEP = (1 << 31) - 2
NUM_FACTORS = 2
WORDS_PER_OPERATION = 8

# The arguments of each begin with x, x_stride, num_rows; these follow, then the factors.
MATMUL_F32, MATMUL_BF16, ADD_MATMUL_F32, ADD_MATMUL_BF16 = range(4)
"""w, num_inputs, bias, y, y_stride, num_panels"""
RMS_NORM = 4
"""size, scale, out, out_stride; eps"""
HEAD_NORM = 5
"""head_dim, scale [heads, head_dim], num_heads; eps. In place."""
ROTATE = 6
"""head_dim, turns, out, out_stride, num_heads, num_scaled; factor of the first num_scaled heads, of the others"""
WRITE_KV = 7
"""values, value_stride, key pages, value pages, kv_size; x are the keys"""
ATTEND = 8
"""key pages, value pages, group, num_kv_heads, head_dim, window, out, out_stride, scratch, scratch_stride, max_pages;
soft_cap; x are the queries"""
GATE_SILU, GATE_GELU = 9, 10
"""b, size, out, out_stride"""
ADD = 11
"""size, target, target_stride; scale"""

_SPINS = 200
"""Looks at a word before the processor is offered to others."""
_STEP_BITS = 32
_COUNT = (1 << _STEP_BITS) - 1

_matmul_f32 = make_matmul(KINDS["float32"], adds=False)
_matmul_bf16 = make_matmul(KINDS["bfloat16"], adds=False)
_add_matmul_f32 = make_matmul(KINDS["float32"], adds=True)
_add_matmul_bf16 = make_matmul(KINDS["bfloat16"], adds=True)
_gate_silu, _gate_gelu = make_gate(SILU), make_gate(GELU_TANH)


@compiled("void(int64[::1], float32[::1], int64[:, ::1], int64[::1], int64[::1], int64, int64)")
def _run_chunk(op, factors, spans, tables, slots, chunk, thread):
    code, num_chunks = op[0], op[1]
    if code <= ADD_MATMUL_BF16:
        first, last = op[10] * chunk // num_chunks, op[10] * (chunk + 1) // num_chunks
        if code == MATMUL_BF16:
            _matmul_bf16(op[2], op[3], op[4], op[5], op[6], op[7], op[8], op[9], first, last)
        elif code == ADD_MATMUL_BF16:
            _add_matmul_bf16(op[2], op[3], op[4], op[5], op[6], op[7], op[8], op[9], first, last)
        elif code == MATMUL_F32:
            _matmul_f32(op[2], op[3], op[4], op[5], op[6], op[7], op[8], op[9], first, last)
        else:
            _add_matmul_f32(op[2], op[3], op[4], op[5], op[6], op[7], op[8], op[9], first, last)
        return
    if code == ATTEND:
        scratch = op[13] + thread * op[14]
        attend(
            op[2], op[3], op[5], op[6], spans, tables, op[7], op[8], op[9], op[10], factors[0],
            op[11], op[12], scratch, op[15], chunk, num_chunks,
        )  # fmt: skip
        return
    first, last = op[4] * chunk // num_chunks, op[4] * (chunk + 1) // num_chunks
    if code == WRITE_KV:
        write(op[2], op[3], op[5], op[6], op[7], op[8], op[9], slots, first, last)
        return
    for row in range(first, last):
        if code == RMS_NORM:
            rms_norm(op[2] + row * op[3], op[5], op[6], factors[0], op[7] + row * op[8])
        elif code == HEAD_NORM:
            for head in range(op[7]):
                at = op[2] + row * op[3] + head * op[5] * 4
                rms_norm(at, op[5], op[6] + head * op[5] * 4, factors[0], at)
        elif code == ADD:
            add_scaled(op[2] + row * op[3], op[5], factors[0], op[6] + row * op[7])
        elif code == GATE_SILU:
            _gate_silu(op[2] + row * op[3], op[5] + row * op[3], op[6], op[7] + row * op[8])
        elif code == GATE_GELU:
            _gate_gelu(op[2] + row * op[3], op[5] + row * op[3], op[6], op[7] + row * op[8])
        elif code == ROTATE:
            size = op[5] * 4
            for head in range(op[9]):
                factor = factors[0] if head < op[10] else factors[1]
                at, to = op[2] + row * op[3] + head * size, op[7] + row * op[8] + head * size
                rotate(at, op[5], op[6] + row * size, factor, to)


@compiled("void(int64[:, ::1], float32[:, ::1], int64[:, ::1], int64[::1], int64[::1])")
def run_alone(operations, factors, spans, tables, slots):
    """Run the whole program on this thread."""
    for index in range(len(operations)):
        for chunk in range(operations[index, 1]):
            _run_chunk(operations[index], factors[index], spans, tables, slots, chunk, 0)


@compiled("void(int64[:, ::1], int64[:, ::1], int64)")
def open_step(operations, words, step):
    """From here on threads may take chunks of this program as `step`."""
    # From the last to the first: whoever sees the first operation open sees all of them.
    for index in range(len(operations) - 1, -1, -1):
        word = step << _STEP_BITS | operations[index, 1]
        atomic.store(words[index, 1:].ctypes.data, word)
        atomic.store(words[index, 0:].ctypes.data, word)


@compiled(
    "void(int64[:, ::1], float32[:, ::1], int64[:, ::1], int64[::1], int64[::1], int64[:, ::1], int64, int64, int64)"
)
def run_shared(operations, factors, spans, tables, slots, words, num_operations, step, thread):
    """Take part in `step` as number `thread`, until it is over."""
    for index in range(num_operations):
        free, undone = words[index, 0:].ctypes.data, words[index, 1:].ctypes.data
        while True:
            word = atomic.load(free)
            if word >> _STEP_BITS != step:
                return
            if word & _COUNT == 0:
                break
            if atomic.exchange_if(free, word, word - 1):
                chunk = (word & _COUNT) - 1
                _run_chunk(operations[index], factors[index], spans, tables, slots, chunk, thread)
                atomic.add(undone, -1)
        spins = 0
        while True:
            word = atomic.load(undone)
            if word >> _STEP_BITS != step:
                return
            if word & _COUNT == 0:
                break
            spins += 1
            if spins % _SPINS == 0:
                atomic.give_way()


@compiled("int64(int64[::1], int64, int64)")
def await_step(current, last, patience):
    """The number of the step that has come after `last`, or `last` when none has for a while."""
    at = current.ctypes.data
    for spins in range(patience):
        step = atomic.load(at)
        if step != last:
            return step
        if spins % _SPINS == _SPINS - 1:
            atomic.give_way()
    return last


mark_compiled()
