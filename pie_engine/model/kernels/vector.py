"""Loops over rows of fp32, in vectors: what the compiler would not make of loops over single numbers.

All take addresses; counts are of numbers, and mean as many whole vectors as hold them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pie_engine.model.kernels.support import LANES

CACHE_LINE = 64

INT = ir.IntType(64)
WORD = ir.IntType(32)
FLOAT = ir.FloatType()
VECTOR = ir.VectorType(FLOAT, LANES)
_WORDS = ir.VectorType(WORD, LANES)
_UNDEFINED = ir.Constant(VECTOR, ir.Undefined)
_FIRST_LANE = ir.Constant(_WORDS, [0] * LANES)
_LANE_NUMBERS = ir.Constant(_WORDS, list(range(LANES)))
_LOWEST = ir.Constant(VECTOR, [float("-inf")] * LANES)

_LOG2_E = math.log2(math.e)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP_TERMS = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""Cephes' polynomial for expf."""
_EXP2_TERMS = (
    1.535336188319500e-4, 1.339887440266574e-3, 9.618437357674640e-3,
    5.550332471162809e-2, 2.402264791363012e-1, 6.931472028550421e-1, 1.0,
)  # fmt: skip
"""And that for exp2f."""
_ROUNDER = 1.5 * 2.0**23
"""Added to a number of fp32, it leaves none of its bits behind the point."""


def constant(value: float) -> Any:
    """The same number in all lanes."""
    return ir.Constant(VECTOR, [value] * LANES)


def pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, VECTOR.as_pointer())


def load(builder: Any, address: Any) -> Any:
    loaded = builder.load(pointer(builder, address))
    loaded.align = 4
    return loaded


def store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, pointer(builder, address)).align = 4


def spread(builder: Any, number: Any) -> Any:
    """One fp32 in all lanes."""
    vector = builder.insert_element(_UNDEFINED, number, ir.Constant(WORD, 0))
    return builder.shuffle_vector(vector, _UNDEFINED, _FIRST_LANE)


def operation(builder: Any, name: str, *vectors: Any) -> Any:
    """One of LLVM's own operations on vectors: `fma`, `maxnum`, `floor`."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * len(vectors))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32"), vectors)


def exp(builder: Any, x: Any) -> Any:
    """e**x to about one unit in the last place; x beyond -87 … 88 counts as the nearest of these."""
    x = operation(builder, "minnum", operation(builder, "maxnum", x, constant(-87.0)), constant(88.0))
    n = operation(builder, "floor", builder.fadd(builder.fmul(x, constant(_LOG2_E)), constant(0.5)))
    r = operation(builder, "fma", n, constant(-_LN2_HIGH), x)
    r = operation(builder, "fma", n, constant(-_LN2_LOW), r)
    p = constant(_EXP_TERMS[0])
    for term in _EXP_TERMS[1:]:
        p = operation(builder, "fma", p, r, constant(term))
    p = operation(builder, "fma", p, builder.fmul(r, r), builder.fadd(r, constant(1.0)))
    biased = builder.add(builder.fptosi(n, _WORDS), ir.Constant(_WORDS, [127] * LANES))
    return builder.fmul(p, builder.bitcast(builder.shl(biased, ir.Constant(_WORDS, [23] * LANES)), VECTOR))


def exp2(builder: Any, x: Any) -> Any:
    """2**x to about one unit in the last place, for x from -125.5 to 125; exactly 1 for 0."""
    shifted = builder.fadd(x, constant(_ROUNDER))
    r = builder.fsub(x, builder.fsub(shifted, constant(_ROUNDER)))
    p = constant(_EXP2_TERMS[0])
    for term in _EXP2_TERMS[1:]:
        p = operation(builder, "fma", p, r, constant(term))
    # What was rounded off lies in the last bits, and goes where the exponent is.
    power = builder.shl(builder.bitcast(shifted, _WORDS), ir.Constant(_WORDS, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(p, _WORDS), power), VECTOR)


def prefetch(builder: Any, address: Any) -> None:
    """Ask for one line of the cache that will be read soon; any address will do."""
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), WORD, WORD, WORD])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    hints = [ir.Constant(WORD, value) for value in (0, 3, 1)]  # to read, to keep, data
    builder.call(function, [builder.inttoptr(address, ir.IntType(8).as_pointer()), *hints])


def fold(builder: Any, name: str, vector: Any) -> Any:
    """All lanes as one number, in halves: `add` or `max`, always in the same order."""
    width = LANES // 2
    while width:
        picks = [lane + width if lane < width else lane for lane in range(LANES)]
        other = builder.shuffle_vector(vector, _UNDEFINED, ir.Constant(_WORDS, picks))
        vector = builder.fadd(vector, other) if name == "add" else operation(builder, "maxnum", vector, other)
        width //= 2
    return builder.extract_element(vector, ir.Constant(WORD, 0))


def each_vector(builder: Any, count: Any) -> Any:
    """A loop over `count` numbers; `index` of what it gives counts vectors, 64 bytes each."""
    rounded = builder.add(count, ir.Constant(INT, LANES - 1))
    return cgutils.for_range(builder, builder.sdiv(rounded, ir.Constant(INT, LANES)))


def at(builder: Any, address: Any, index: Any) -> Any:
    """The address of vector `index`."""
    return builder.add(address, builder.mul(index, ir.Constant(INT, LANES * 4)))


@intrinsic
def scale_row(_typing: Any, source: Any, count: Any, scale: Any, target: Any) -> Any:
    """target[count] = source * scale"""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, count, scale, target = arguments
        factor = spread(builder, scale)
        with each_vector(builder, count) as loop:
            value = builder.fmul(load(builder, at(builder, source, loop.index)), factor)
            store(builder, value, at(builder, target, loop.index))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64), emit


@intrinsic
def add_row(_typing: Any, target: Any, count: Any, source: Any) -> Any:
    """target[count] += source"""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        target, count, source = arguments
        with each_vector(builder, count) as loop:
            place = at(builder, target, loop.index)
            value = builder.fadd(load(builder, place), load(builder, at(builder, source, loop.index)))
            store(builder, value, place)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def add_scaled(_typing: Any, source: Any, count: Any, scale: Any, target: Any) -> Any:
    """target[count] += source * scale"""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, count, scale, target = arguments
        factor = spread(builder, scale)
        with each_vector(builder, count) as loop:
            place = at(builder, target, loop.index)
            value = load(builder, at(builder, source, loop.index))
            store(builder, operation(builder, "fma", value, factor, load(builder, place)), place)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64), emit


@intrinsic
def number_at(_typing: Any, address: Any) -> Any:
    """The fp32 there."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], FLOAT.as_pointer()))

    return types.float32(types.int64), emit


@intrinsic
def put_number(_typing: Any, address: Any, number: Any) -> Any:
    """Write an fp32."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], FLOAT.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), emit


@intrinsic
def index_at(_typing: Any, address: Any) -> Any:
    """The int64 there."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], INT.as_pointer()))

    return types.int64(types.int64), emit


@intrinsic
def put_index(_typing: Any, address: Any, index: Any) -> Any:
    """Write an int64."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], INT.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def fetch(_typing: Any, address: Any, num_bytes: Any) -> Any:
    """Ask for memory that will be read soon."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, num_bytes = arguments
        with cgutils.for_range(builder, builder.sdiv(num_bytes, ir.Constant(INT, CACHE_LINE))) as loop:
            prefetch(builder, builder.add(address, builder.mul(loop.index, ir.Constant(INT, CACHE_LINE))))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def clear_row(_typing: Any, target: Any, count: Any) -> Any:
    """target[count] = 0"""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        target, count = arguments
        with each_vector(builder, count) as loop:
            store(builder, constant(0.0), at(builder, target, loop.index))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


def make_scatter(to_bf16: bool) -> Any:
    """A kernel `scatter(source, count, target, stride)`: number i of the fp32 source[count] goes `i * stride` bytes
    behind `target`, as it is or as bf16."""
    kind = ir.IntType(16) if to_bf16 else FLOAT

    @intrinsic
    def scatter(_typing: Any, source: Any, count: Any, target: Any, stride: Any) -> Any:
        return types.void(types.int64, types.int64, types.int64, types.int64), _emit

    def _emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, count, target, stride = arguments
        with cgutils.for_range(builder, count) as loop:
            offset = builder.mul(loop.index, ir.Constant(INT, 4))
            number = builder.load(builder.inttoptr(builder.add(source, offset), FLOAT.as_pointer()))
            place = builder.add(target, builder.mul(loop.index, stride))
            value = _rounded(builder, number) if to_bf16 else number
            builder.store(value, builder.inttoptr(place, kind.as_pointer())).align = 2
        return context.get_dummy_value()

    return scatter


def _rounded(builder: Any, number: Any) -> Any:
    """fp32 to the nearest bf16, ties to even, as 16 bits."""
    bits = builder.bitcast(number, WORD)
    odd = builder.and_(builder.lshr(bits, ir.Constant(WORD, 16)), ir.Constant(WORD, 1))
    bits = builder.add(bits, builder.add(odd, ir.Constant(WORD, 0x7FFF)))
    return builder.trunc(builder.lshr(bits, ir.Constant(WORD, 16)), ir.IntType(16))


@intrinsic
def softmax(_typing: Any, row: Any, first: Any, end: Any, count: Any, soft_cap: Any, sink: Any) -> Any:
    """Turn scores into weights, in place, and return the weights' sum; numbers outside `first … end - 1` get weight 0.

    With `soft_cap` > 0 the scores first become `soft_cap * tanh(score / soft_cap)`. `sink` is one score more, whose
    weight is in the sum only; minus infinity: none. Sums run lane by lane, so they do not depend on how many numbers
    follow `end`.
    """

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        row, first, end, count, soft_cap, sink = arguments
        return _emit_softmax(builder, row, count, soft_cap, sink, lambda index: _is_inside(builder, index, first, end))

    return types.float32(*[types.int64] * 4, types.float32, types.float32), emit


@intrinsic
def softmax_seen(_typing: Any, row: Any, words: Any, count: Any, soft_cap: Any, sink: Any) -> Any:
    """`softmax` over the numbers whose bit is set: bit i of 16-bit word w, at the address `words`, is of 16 * w + i."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        row, words, count, soft_cap, sink = arguments
        return _emit_softmax(builder, row, count, soft_cap, sink, lambda index: bits(builder, words, index))

    return types.float32(*[types.int64] * 3, types.float32, types.float32), emit


def _emit_softmax(builder: Any, row: Any, count: Any, soft_cap: Any, sink: Any, is_seen: Callable[[Any], Any]) -> Any:
    """`is_seen` of a vector's index gives the lanes that count."""
    highest = cgutils.alloca_once(builder, VECTOR)
    total = cgutils.alloca_once(builder, VECTOR)
    builder.store(_LOWEST, highest)
    builder.store(constant(0.0), total)
    with builder.if_then(builder.fcmp_ordered(">", soft_cap, ir.Constant(FLOAT, 0.0))):
        cap = spread(builder, soft_cap)
        with each_vector(builder, count) as loop:
            place = at(builder, row, loop.index)
            ratio = builder.fdiv(load(builder, place), cap)
            grown = exp(builder, builder.fadd(ratio, ratio))
            tanh = builder.fsub(constant(1.0), builder.fdiv(constant(2.0), builder.fadd(grown, constant(1.0))))
            store(builder, builder.fmul(cap, tanh), place)
    with each_vector(builder, count) as loop:
        place = at(builder, row, loop.index)
        score = builder.select(is_seen(loop.index), load(builder, place), _LOWEST)
        store(builder, score, place)
        builder.store(operation(builder, "maxnum", builder.load(highest), score), highest)
    builder.store(operation(builder, "maxnum", builder.load(highest), spread(builder, sink)), highest)
    most = spread(builder, fold(builder, "max", builder.load(highest)))
    with each_vector(builder, count) as loop:
        place = at(builder, row, loop.index)
        weight = exp(builder, builder.fsub(load(builder, place), most))
        weight = builder.select(is_seen(loop.index), weight, constant(0.0))
        store(builder, weight, place)
        builder.store(builder.fadd(builder.load(total), weight), total)
    # e**-87 where there is none, which changes no sum that has a one in it.
    extra = exp(builder, builder.fsub(spread(builder, sink), most))
    first_lane = builder.extract_element(extra, ir.Constant(WORD, 0))
    return builder.fadd(fold(builder, "add", builder.load(total)), first_lane)


def bits(builder: Any, words: Any, index: Any) -> Any:
    """The bits of word `index` as lanes."""
    kind = ir.IntType(LANES)
    place = builder.add(words, builder.mul(index, ir.Constant(INT, LANES // 8)))
    word = builder.load(builder.inttoptr(place, kind.as_pointer()))
    word.align = 2
    return builder.bitcast(word, ir.VectorType(ir.IntType(1), LANES))


def _is_inside(builder: Any, index: Any, first: Any, end: Any) -> Any:
    """In 32 bits: twice as many of them are compared at once."""

    def spread_int(value: Any) -> Any:
        undefined = ir.Constant(_WORDS, ir.Undefined)
        narrow = builder.trunc(value, WORD)
        return builder.shuffle_vector(
            builder.insert_element(undefined, narrow, ir.Constant(WORD, 0)), undefined, _FIRST_LANE
        )

    start = spread_int(builder.mul(index, ir.Constant(INT, LANES)))
    lanes = builder.add(start, _LANE_NUMBERS)
    return builder.and_(
        builder.icmp_signed(">=", lanes, spread_int(first)), builder.icmp_signed("<", lanes, spread_int(end))
    )
