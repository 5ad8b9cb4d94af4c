"""Norms, rotations and activations over rows of fp32. Rows are `… _stride` bytes apart; sizes are multiples of 16."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pie_engine.model.kernels import vector
from pie_engine.model.kernels.support import LANES
from pie_engine.model.kernels.vector import FLOAT, VECTOR

SILU, GELU_TANH = 0, 1
"""Activations of a gated MLP."""


@intrinsic
def rms_norm(_typing: Any, x: Any, size: Any, scale: Any, eps: Any, out: Any) -> Any:
    """out[size] = x / sqrt(mean(x²) + eps) * scale (https://arxiv.org/abs/1910.07467)."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x, size, scale, eps, out = arguments
        squares = cgutils.alloca_once(builder, VECTOR)
        builder.store(vector.constant(0.0), squares)
        with vector.each_vector(builder, size) as loop:
            value = vector.load(builder, vector.at(builder, x, loop.index))
            builder.store(vector.operation(builder, "fma", value, value, builder.load(squares)), squares)
        total = vector.fold(builder, "add", builder.load(squares))
        mean = builder.fdiv(total, builder.sitofp(size, FLOAT))
        root = vector.operation(builder, "sqrt", vector.spread(builder, builder.fadd(mean, eps)))
        inverse = builder.fdiv(vector.constant(1.0), root)
        with vector.each_vector(builder, size) as loop:
            value = builder.fmul(vector.load(builder, vector.at(builder, x, loop.index)), inverse)
            value = builder.fmul(value, vector.load(builder, vector.at(builder, scale, loop.index)))
            vector.store(builder, value, vector.at(builder, out, loop.index))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.float32, types.int64), emit


@intrinsic
def rotate(_typing: Any, x: Any, size: Any, turns: Any, factor: Any, out: Any) -> Any:
    """Multiply the complex numbers in x[size] (pairs are neighbours) by those in turns[size], and by `factor`."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x, size, turns, factor, out = arguments
        scale = vector.spread(builder, factor)
        signs = ir.Constant(VECTOR, [-1.0, 1.0] * (LANES // 2))
        with vector.each_vector(builder, size) as loop:
            value = builder.fmul(vector.load(builder, vector.at(builder, x, loop.index)), scale)
            turn = vector.load(builder, vector.at(builder, turns, loop.index))
            cosines = _pick(builder, turn, [lane & ~1 for lane in range(LANES)])
            sines = builder.fmul(_pick(builder, turn, [lane | 1 for lane in range(LANES)]), signs)
            crossed = builder.fmul(_pick(builder, value, [lane ^ 1 for lane in range(LANES)]), sines)
            rotated = vector.operation(builder, "fma", value, cosines, crossed)
            vector.store(builder, rotated, vector.at(builder, out, loop.index))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.float32, types.int64), emit


def make_gate(activation: int) -> Any:
    """A kernel `gate(a, b, size, out)`: out[size] = activation(a) * b."""

    @intrinsic
    def gate(_typing: Any, a: Any, b: Any, size: Any, out: Any) -> Any:
        return types.void(types.int64, types.int64, types.int64, types.int64), _emit

    def _emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, b, size, out = arguments
        with vector.each_vector(builder, size) as loop:
            x = vector.load(builder, vector.at(builder, a, loop.index))
            other = vector.load(builder, vector.at(builder, b, loop.index))
            # Both are x times a logistic function: gelu's tanh form is x * logistic(2 sqrt(2/π) (x + 0.044715 x³)).
            slope = x
            if activation == GELU_TANH:
                cube = builder.fmul(builder.fmul(x, x), x)
                inner = vector.operation(builder, "fma", cube, vector.constant(0.044715), x)
                slope = builder.fmul(inner, vector.constant(1.5957691216057308))
            decay = vector.exp(builder, builder.fneg(slope))
            active = builder.fdiv(x, builder.fadd(vector.constant(1.0), decay))
            vector.store(builder, builder.fmul(active, other), vector.at(builder, out, loop.index))
        return context.get_dummy_value()

    return gate


def _pick(builder: Any, value: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(
        value, ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
    )
