"""Norms, rotations and activations over rows of fp32. A size means as many whole vectors as hold so many numbers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pie_engine.model.kernels import vector
from pie_engine.model.kernels.support import LANES
from pie_engine.model.kernels.vector import VECTOR

SILU, GELU, GELU_TANH, CLAMPED = 0, 1, 2, 3
"""Activations of a gated MLP."""

_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_SLOPE = 0.3275911
"""Formula 7.1.26 of Abramowitz and Stegun: erf to 1.5e-7."""


@intrinsic
def rms_norm(_typing: Any, x: Any, size: Any, scale: Any, eps: Any, count: Any, out: Any) -> Any:
    """out[size] = x / sqrt(sum(x²) / count + eps) * scale (https://arxiv.org/abs/1910.07467)."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x, size, scale, eps, count, out = arguments
        squares = cgutils.alloca_once(builder, VECTOR)
        builder.store(vector.constant(0.0), squares)
        with vector.each_vector(builder, size) as loop:
            value = vector.load(builder, vector.at(builder, x, loop.index))
            builder.store(vector.operation(builder, "fma", value, value, builder.load(squares)), squares)
        total = vector.fold(builder, "add", builder.load(squares))
        mean = builder.fdiv(total, count)
        root = vector.operation(builder, "sqrt", vector.spread(builder, builder.fadd(mean, eps)))
        inverse = builder.fdiv(vector.constant(1.0), root)
        with vector.each_vector(builder, size) as loop:
            value = builder.fmul(vector.load(builder, vector.at(builder, x, loop.index)), inverse)
            value = builder.fmul(value, vector.load(builder, vector.at(builder, scale, loop.index)))
            vector.store(builder, value, vector.at(builder, out, loop.index))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, types.float32, types.float32, types.int64), emit


@intrinsic
def layer_norm(_typing: Any, x: Any, size: Any, scale: Any, bias: Any, eps: Any, count: Any, out: Any) -> Any:
    """out[size] = (x - mean(x)) / sqrt(variance(x) + eps) * scale + bias (https://arxiv.org/abs/1607.06450).

    Of the numbers in whole vectors `count` are counted; the others are zeros.
    """

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x, size, scale, bias, eps, count, out = arguments
        total = cgutils.alloca_once(builder, VECTOR)
        builder.store(vector.constant(0.0), total)
        with vector.each_vector(builder, size) as loop:
            value = vector.load(builder, vector.at(builder, x, loop.index))
            builder.store(builder.fadd(builder.load(total), value), total)
        mean = builder.fdiv(vector.fold(builder, "add", builder.load(total)), count)
        middle = vector.spread(builder, mean)
        builder.store(vector.constant(0.0), total)
        with vector.each_vector(builder, size) as loop:
            value = builder.fsub(vector.load(builder, vector.at(builder, x, loop.index)), middle)
            builder.store(vector.operation(builder, "fma", value, value, builder.load(total)), total)
        # Each zero that only fills a vector up has added mean².
        lanes = ir.Constant(vector.INT, LANES)
        rounded = builder.mul(builder.udiv(builder.add(size, ir.Constant(vector.INT, LANES - 1)), lanes), lanes)
        num_zeros = builder.fsub(builder.sitofp(rounded, vector.FLOAT), count)
        squares = vector.fold(builder, "add", builder.load(total))
        squares = builder.fsub(squares, builder.fmul(num_zeros, builder.fmul(mean, mean)))
        variance = builder.fadd(builder.fdiv(squares, count), eps)
        root = vector.operation(builder, "sqrt", vector.spread(builder, variance))
        inverse = builder.fdiv(vector.constant(1.0), root)
        with vector.each_vector(builder, size) as loop:
            value = builder.fsub(vector.load(builder, vector.at(builder, x, loop.index)), middle)
            value = builder.fmul(
                builder.fmul(value, inverse), vector.load(builder, vector.at(builder, scale, loop.index))
            )
            value = builder.fadd(value, vector.load(builder, vector.at(builder, bias, loop.index)))
            vector.store(builder, value, vector.at(builder, out, loop.index))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, types.float32, types.float32, types.int64), emit


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
    """A kernel `gate(a, b, size, out, alpha, limit)`: out[size] = activation(a) * b.

    The last two are for `CLAMPED` (https://arxiv.org/abs/2508.10925): a is at most `limit` and b within ± `limit`, and
    out = a * logistic(alpha a) * (b + 1).
    """

    @intrinsic
    def gate(_typing: Any, a: Any, b: Any, size: Any, out: Any, alpha: Any, limit: Any) -> Any:
        return types.void(*[types.int64] * 4, types.float32, types.float32), _emit

    def _emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, b, size, out, alpha, limit = arguments
        with vector.each_vector(builder, size) as loop:
            x = vector.load(builder, vector.at(builder, a, loop.index))
            other = vector.load(builder, vector.at(builder, b, loop.index))
            if activation == CLAMPED:
                most = vector.spread(builder, limit)
                x, other = (vector.operation(builder, "minnum", value, most) for value in (x, other))
                other = vector.operation(builder, "maxnum", other, builder.fneg(most))
                other = builder.fadd(other, vector.constant(1.0))
                active = _logistic_unit(builder, x, builder.fmul(x, vector.spread(builder, alpha)))
            elif activation == GELU:
                active = _gelu(builder, x)
            elif activation == GELU_TANH:
                # x * logistic(2 sqrt(2/π) (x + 0.044715 x³))
                cube = builder.fmul(builder.fmul(x, x), x)
                inner = vector.operation(builder, "fma", cube, vector.constant(0.044715), x)
                active = _logistic_unit(builder, x, builder.fmul(inner, vector.constant(1.5957691216057308)))
            else:
                active = _logistic_unit(builder, x, x)
            vector.store(builder, builder.fmul(active, other), vector.at(builder, out, loop.index))
        return context.get_dummy_value()

    return gate


def _logistic_unit(builder: Any, x: Any, slope: Any) -> Any:
    """x * logistic(slope)"""
    decay = vector.exp(builder, builder.fneg(slope))
    return builder.fdiv(x, builder.fadd(vector.constant(1.0), decay))


def _gelu(builder: Any, x: Any) -> Any:
    """x (1 + erf(x / √2)) / 2, which is half of erfc for one sign of x and its complement for the other."""
    z = vector.operation(builder, "fabs", builder.fmul(x, vector.constant(0.7071067811865476)))
    one = vector.constant(1.0)
    t = builder.fdiv(one, vector.operation(builder, "fma", z, vector.constant(_ERF_SLOPE), one))
    terms = vector.constant(_ERF[-1])
    for term in reversed(_ERF[:-1]):
        terms = vector.operation(builder, "fma", terms, t, vector.constant(term))
    tail = builder.fmul(builder.fmul(terms, t), vector.exp(builder, builder.fneg(builder.fmul(z, z))))
    half = builder.fmul(vector.constant(0.5), tail)
    is_negative = builder.fcmp_ordered("<", x, vector.constant(0.0))
    return builder.fmul(x, builder.select(is_negative, half, builder.fsub(one, half)))


def _pick(builder: Any, value: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(
        value, ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
    )
