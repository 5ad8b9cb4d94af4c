"""A step's program and the threads that run it.

    words  int64 [n, 8]: of each operation the chunks that nobody has taken, and those that are not done

A thread takes a chunk of the current operation, and goes on to the next operation when all chunks of this one are done.
So nobody waits for a thread that the operating system has put aside, unless it holds a chunk, and a thread that comes
late, or never, changes nothing. What a chunk computes does not depend on who does it.

Words carry the number of the step in their upper half, so that a thread that wakes up in a later step can take nothing
by mistake; a program is written anew only when all its chunks are done, and read only by who holds one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from pie_engine.model.kernels import atomic
from pie_engine.model.kernels.attention import make_attend, make_write
from pie_engine.model.kernels.cache import mark_compiled
from pie_engine.model.kernels.codes import (
    ADAPT,
    ADD,
    ATTEND,
    COMBINE,
    EXPERTS,
    GATE_CLAMPED,
    GATE_GELU,
    GATE_GELU_TANH,
    GATE_SILU,
    GATHER,
    GROUP,
    HEAD_NORM,
    LAYER_NORM,
    MATMUL,
    RMS_NORM,
    ROTATE,
    ROUTE,
    WRITE_KV,
)
from pie_engine.model.kernels.elementwise import CLAMPED, GELU, GELU_TANH, SILU, layer_norm, make_gate, rms_norm, rotate
from pie_engine.model.kernels.experts import combine, experts, gather, group, route
from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.kinds import PLAIN
from pie_engine.model.kernels.lora import make_adapt
from pie_engine.model.kernels.matmul import run_matmul
from pie_engine.model.kernels.vector import add_scaled

MAX_STEP = (1 << 31) - 2
WORDS_PER_OPERATION = 8

_SPINS = 200
"""Looks at a word before the processor is offered to others."""
_STEP_BITS = 32
_COUNT = (1 << _STEP_BITS) - 1

_gate_silu, _gate_gelu, _gate_gelu_tanh, _gate_clamped = map(make_gate, (SILU, GELU, GELU_TANH, CLAMPED))


@dataclass(frozen=True)
class StepKernels:
    """Compiled for one kind of keys and values."""

    run_alone: Any
    """See `_run_alone`."""
    run_shared: Any
    """See `_run_shared`."""


@functools.cache
def step_kernels(kind_name: str) -> StepKernels:
    """For `bfloat16` or `float32`. The first time on a machine this takes half a minute."""
    kind = PLAIN[kind_name]
    run_chunk = compiled(
        "void(int64[::1], float32[::1], int64[:, ::1], int64[::1], int64[::1], int64, int64)",
        name=f"run_chunk_{kind_name}",
        attend=make_attend(kind),
        write=make_write(kind),
        adapt=make_adapt(kind),
    )(_run_chunk)
    arrays = "int64[:, ::1], float32[:, ::1], int64[:, ::1], int64[::1], int64[::1]"
    kernels = StepKernels(
        run_alone=compiled(f"void({arrays})", name=f"run_alone_{kind_name}", run_chunk=run_chunk)(_run_alone),
        run_shared=compiled(
            f"void({arrays}, int64[:, ::1], int64, int64, int64)", name=f"run_shared_{kind_name}", run_chunk=run_chunk
        )(_run_shared),
    )
    mark_compiled(kind_name)
    return kernels


def _run_chunk(op, factors, spans, tables, slots, chunk, thread):
    code, num_chunks = op[0], op[1]
    if code == MATMUL:
        first, last = op[12] * chunk // num_chunks, op[12] * (chunk + 1) // num_chunks
        run_matmul(op[13], op[2], op[3], op[4], op[5], op[6], op[7], op[8], op[9], op[10], op[11], first, last)
        return
    if code == ATTEND:
        attend(
            op[2], op[3], op[5], op[6], spans, tables, op[7], op[8], op[9], op[10], factors[0], op[16],
            op[11], op[12], op[13] + thread * op[14], op[15], op[17], chunk, num_chunks,
        )  # fmt: skip
        return
    if code == EXPERTS:
        experts(
            op[13], op[2], op[3], op[5], op[6], op[7], op[8], op[9], op[10], op[12], op[14], op[15], op[16],
            chunk, num_chunks,
        )  # fmt: skip
        return
    if code == GROUP:
        group(op[2], op[4], op[5], op[6], op[7], op[8], op[9])
        return
    first, last = op[4] * chunk // num_chunks, op[4] * (chunk + 1) // num_chunks
    if code == WRITE_KV:
        write(op[2], op[3], op[5], op[6], op[7], op[8], op[9], slots, first, last)
        return
    if code == ADAPT:
        adapt(op[2], op[3], op[5], op[6], op[7], op[8], op[9], op[10], op[11], first, last)
        return
    if code == GATHER:
        gather(op[2], op[3], op[5], op[6], op[7], op[8], first, last)
        return
    for row in range(first, last):
        if code == RMS_NORM:
            rms_norm(op[2] + row * op[3], op[5], op[6], factors[0], factors[1], op[7] + row * op[8])
        elif code == HEAD_NORM:
            for head in range(op[7]):
                at = op[2] + row * op[3] + head * op[5] * 4
                rms_norm(at, op[5], op[6] + head * op[5] * 4, factors[0], factors[1], at)
        elif code == LAYER_NORM:
            x, out = op[2] + row * op[3], op[8] + row * op[9]
            layer_norm(x, op[5], op[6], op[7], factors[0], factors[1], out)
        elif code == ADD:
            add_scaled(op[2] + row * op[3], op[5], factors[0], op[6] + row * op[7])
        elif GATE_SILU <= code <= GATE_CLAMPED:
            a, b, out = op[2] + row * op[3], op[5] + row * op[3], op[7] + row * op[8]
            if code == GATE_SILU:
                _gate_silu(a, b, op[6], out, factors[0], factors[1])
            elif code == GATE_GELU:
                _gate_gelu(a, b, op[6], out, factors[0], factors[1])
            elif code == GATE_GELU_TANH:
                _gate_gelu_tanh(a, b, op[6], out, factors[0], factors[1])
            elif code == GATE_CLAMPED:
                _gate_clamped(a, b, op[6], out, factors[0], factors[1])
        elif code == ROUTE:
            chosen, shares = op[7] + row * op[6] * 8, op[8] + row * op[6] * 4
            route(op[2] + row * op[3], op[5], op[6], chosen, shares, op[9], factors[0])
        elif code == COMBINE:
            places, shares = op[5] + row * op[7] * 8, op[6] + row * op[7] * 4
            combine(op[2], op[3], places, shares, op[7], op[8], op[9] + row * op[10])
        elif code == ROTATE:
            size = op[5] * 4
            for head in range(op[9]):
                factor = factors[0] if head < op[10] else factors[1]
                at, to = op[2] + row * op[3] + head * size, op[7] + row * op[8] + head * size
                rotate(at, op[5], op[6] + row * size, factor, to)


def _run_alone(operations, factors, spans, tables, slots):
    """Run the whole program on this thread."""
    for index in range(len(operations)):
        for chunk in range(operations[index, 1]):
            run_chunk(operations[index], factors[index], spans, tables, slots, chunk, 0)


def _run_shared(operations, factors, spans, tables, slots, words, num_operations, step, thread):
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
                run_chunk(operations[index], factors[index], spans, tables, slots, chunk, thread)
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


@compiled("void(int64[:, ::1], int64[:, ::1], int64)")
def open_step(operations, words, step):
    """From here on threads may take chunks of this program as `step`."""
    # From the last to the first: whoever sees the first operation open sees all of them.
    for index in range(len(operations) - 1, -1, -1):
        word = step << _STEP_BITS | operations[index, 1]
        atomic.store(words[index, 1:].ctypes.data, word)
        atomic.store(words[index, 0:].ctypes.data, word)


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
