"""Choosing a token of each row: the likeliest, or one drawn after temperature, top-k, top-p and min-p.

All three of these keep the first so many tokens of the order by probability (`kernels.ranks`). First only tokens with a
weight that matters are looked at; if these do not decide, more.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.ranks import LISTS, rank_kernels
from pie_engine.model.kernels.support import LANES
from pie_engine.model.kernels.vector import (
    INT,
    VECTOR,
    at,
    bits,
    constant,
    each_vector,
    exp2,
    fold,
    load,
    number_at,
    operation,
    put_number,
    spread,
    store,
)

_BLOCK = 256
"""Numbers whose sum is in fp32; the sum of these is in fp64."""
_FLOORS = (2e-2, 1e-4, 1e-38)
"""Weights, the likeliest token's being 1, from which on tokens are looked at: more and more, until they decide."""
_LAST_FLOOR = _FLOORS[-1]
_CHAINS = 4
_ENOUGH = 64
"""Tokens that are no reason to look for a higher floor."""
_NUM_LOOKS = 16
"""For a higher floor."""
_MIN_TEMPERATURE = 1e-20
_LOG2_E = math.log2(math.e)
_NOWHERE = -1
NO_DISTRIBUTION, NOTHING_ALLOWED = -1, -2
NUM_SETTINGS = 6
"""Of a row; see `_choose`."""
_INFINITY = float("inf")
_LOWEST = np.float32(-np.inf)


@intrinsic
def highest(_typing: Any, row: Any, count: Any) -> Any:
    """The largest of `count` numbers, whole vectors of them; NaN if there is one."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        row, count = arguments
        most = [cgutils.alloca_once_value(builder, constant(float("-inf"))) for _ in range(_CHAINS)]
        wrong = [cgutils.alloca_once_value(builder, constant(0.0)) for _ in range(_CHAINS)]

        def look(index: Any, chain: int) -> None:
            value, highest_yet = load(builder, at(builder, row, index)), builder.load(most[chain])
            # One instruction, where `maxnum` is three, since a NaN may get lost here.
            is_higher = builder.fcmp_ordered(">", value, highest_yet)
            builder.store(builder.select(is_higher, value, highest_yet), most[chain])
            is_wrong = builder.fcmp_unordered("uno", value, value)
            builder.store(builder.select(is_wrong, value, builder.load(wrong[chain])), wrong[chain])

        # In chains, since each of these steps waits for the one before it in its own.
        num_groups = builder.udiv(count, ir.Constant(INT, LANES * _CHAINS))
        first_left = builder.mul(num_groups, ir.Constant(INT, _CHAINS))
        with cgutils.for_range(builder, num_groups) as loop:
            first = builder.mul(loop.index, ir.Constant(INT, _CHAINS))
            for chain in range(_CHAINS):
                look(builder.add(first, ir.Constant(INT, chain)), chain)
        with each_vector(builder, builder.sub(count, builder.mul(first_left, ir.Constant(INT, LANES)))) as loop:
            look(builder.add(first_left, loop.index), 0)
        for chain in range(1, _CHAINS):
            highest_of = operation(builder, "maxnum", builder.load(most[0]), builder.load(most[chain]))
            builder.store(highest_of, most[0])
            builder.store(builder.fadd(builder.load(wrong[0]), builder.load(wrong[chain])), wrong[0])
        return builder.fadd(fold(builder, "max", builder.load(most[0])), fold(builder, "add", builder.load(wrong[0])))

    return types.float32(types.int64, types.int64), emit


@intrinsic
def weigh(_typing: Any, row: Any, count: Any, most: Any, factor: Any, out: Any) -> Any:
    """out[count] = 2**((row - most) * factor), 0 where that is below 2**-125; returns their sum. Whole vectors."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        row, count, most, factor, out = arguments
        top, scale = spread(builder, most), spread(builder, factor)
        total = cgutils.alloca_once_value(builder, constant(0.0))
        with each_vector(builder, count) as loop:
            value = builder.fmul(builder.fsub(load(builder, at(builder, row, loop.index)), top), scale)
            is_some = builder.fcmp_ordered(">", value, constant(-125.0))
            weight = exp2(builder, operation(builder, "maxnum", value, constant(-125.0)))
            weight = builder.select(is_some, weight, constant(0.0))
            store(builder, weight, at(builder, out, loop.index))
            builder.store(builder.fadd(builder.load(total), weight), total)
        return fold(builder, "add", builder.load(total))

    return types.float32(types.int64, types.int64, types.float32, types.float32, types.int64), emit


@intrinsic
def lanes_from(_typing: Any, address: Any, least: Any) -> Any:
    """A bit for each number of one vector that is not below `least`."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, least = arguments
        is_above = builder.fcmp_ordered(">=", load(builder, address), spread(builder, least))
        return builder.zext(builder.bitcast(is_above, ir.IntType(VECTOR.count)), INT)

    return types.int64(types.int64, types.float32), emit


@intrinsic
def count_from(_typing: Any, row: Any, count: Any, least: Any) -> Any:
    """How many of `count` numbers are not below `least`. Whole vectors."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        row, count, least = arguments
        bound = spread(builder, least)
        total = cgutils.alloca_once_value(builder, constant(0.0))
        with each_vector(builder, count) as loop:
            is_above = builder.fcmp_ordered(">=", load(builder, at(builder, row, loop.index)), bound)
            one = builder.select(is_above, constant(1.0), constant(0.0))
            builder.store(builder.fadd(builder.load(total), one), total)
        return fold(builder, "add", builder.load(total))

    return types.float32(types.int64, types.int64, types.float32), emit


@intrinsic
def allow(_typing: Any, row: Any, mask: Any, count: Any, out: Any) -> Any:
    """out[count] = row where the bit of `mask` is set, minus infinity elsewhere. Whole vectors."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        row, mask, count, out = arguments
        with each_vector(builder, count) as loop:
            value = load(builder, at(builder, row, loop.index))
            value = builder.select(bits(builder, mask, loop.index), value, constant(float("-inf")))
            store(builder, value, at(builder, out, loop.index))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


@functools.cache
def choose_kernel() -> Any:
    """The kernel `choose` (see `_choose`)."""
    ranks = rank_kernels()
    decide = compiled(
        f"int64({LISTS}, int64, int64, float64, float64, float64[::1])",
        name="decide",
        find=ranks.find,
        mass_of=ranks.mass_of,
    )(_decide)
    gather = compiled("int64(float32[::1], int64, float32, int64[::1])", name="gather_from")(_gather)
    gather_equal = compiled("int64(int64, int64, float32, int64, int64[::1])", name="gather_equal")(_gather_equal)
    raised = compiled("float64(float32[::1], int64, float64, int64)", name="raised")(_raised)
    draw = compiled(
        "int64(int64, int64, float32, float64[::1], float32[::1], int64[:, ::1], int64[::1], float64[::1])",
        name="draw_token",
        raised=raised,
        gather=gather,
        gather_equal=gather_equal,
        fill_buckets=ranks.fill_buckets,
        decide=decide,
    )(_draw)
    highest_of = compiled("float32(int64, int64)", name="highest_of")(_highest_of)
    first_of = compiled("int64(int64, int64, float32)", name="first_of")(_first_of)
    return compiled(
        "void(int64, int64, int64, float64[:, ::1], int64, int64, float32[:, ::1], int64[:, ::1], int64[::1],"
        " float64[::1], int64[::1])",
        name="choose",
        limited=compiled("void(int64, int64, int64, int64)", name="limited")(_limited),
        highest_of=highest_of,
        first_of=first_of,
        draw=draw,
    )(_choose)


def _choose(logits, stride, vocab, settings, masks, mask_stride, numbers, orders, starts, sums, tokens):
    """tokens[row] = one for each row of `settings`: temperature, top-k (0: all), top-p, min-p, random number, and
    whether the row has a mask.

    `logits` are rows of fp32, `stride` bytes apart, and `masks` the bits of those that have one, in whole vectors. At
    temperature 0 it is the first of the likeliest tokens. -1: the row has no distribution; -2: its mask leaves nothing.
    The others are room: `numbers` and `orders` [2, vocab] in whole vectors, `starts` and `sums` for `NUM_BUCKETS`.
    """
    mask = masks
    for row in range(len(settings)):
        x = logits + row * stride
        fault = NO_DISTRIBUTION
        most = highest_of(x, vocab)
        if settings[row, 5]:
            # A NaN stays one, also where the mask would hide it.
            if most == most:
                fault = NOTHING_ALLOWED if -_INFINITY < most < _INFINITY else fault
                limited(x, mask, vocab, numbers[0].ctypes.data)
                x = numbers[0].ctypes.data
                most = highest_of(x, vocab)
            mask += mask_stride
        if not -_INFINITY < most < _INFINITY:
            tokens[row] = fault
        elif settings[row, 0] == 0.0:
            tokens[row] = first_of(x, vocab, most)
        else:
            tokens[row] = draw(x, vocab, most, settings[row], numbers[1], orders, starts, sums)


def _limited(x, mask, vocab, out):
    """out[vocab] = the row, minus infinity where the bit of the mask is not set."""
    whole = vocab // LANES * LANES
    allow(x, mask, whole, out)
    if whole < vocab:
        for token in range(whole, whole + LANES):
            put_number(out + token * 4, number_at(x + token * 4) if token < vocab else _LOWEST)
        allow(out + whole * 4, mask + whole // 8, LANES, out + whole * 4)


def _highest_of(x, vocab):
    """The largest logit of the row; NaN if there is one."""
    whole = vocab // LANES * LANES
    most = highest(x, whole)
    for token in range(whole, vocab):
        value = number_at(x + token * 4)
        if value > most or value != value:
            most = value
    return most


def _first_of(x, vocab, most):
    """The first token whose logit is `most`."""
    whole = vocab // LANES * LANES
    token = 0
    while token < whole and lanes_from(x + token * 4, most) == 0:
        token += LANES
    while number_at(x + token * 4) != most:
        token += 1
    return token


def _draw(x, vocab, most, setting, weights, orders, starts, sums):
    """A token by inverse CDF over what is left, sorted by probability."""
    room, whole = weights.ctypes.data, vocab // LANES * LANES
    factor = types.float32(_LOG2_E / max(setting[0], _MIN_TEMPERATURE))
    total = 0.0
    for first in range(0, whole, _BLOCK):
        total += weigh(x + first * 4, min(_BLOCK, whole - first), most, factor, room + first * 4)
    if whole < vocab:
        for token in range(whole, whole + LANES):
            put_number(room + token * 4, number_at(x + token * 4) if token < vocab else _LOWEST)
        total += weigh(room + whole * 4, LANES, most, factor, room + whole * 4)
    token, top_k = _NOWHERE, int(setting[1])
    for least in _FLOORS:
        floor, count = raised(weights, vocab, least, top_k) if top_k > 0 else least, 0
        if floor > least:
            count = gather_equal(x, vocab, most, top_k, orders[0])
        if count < max(top_k, 1):
            count = gather(weights, vocab, floor, orders[0])
        num_buckets = fill_buckets(x, weights, orders[1], starts, sums, count, orders[0])
        token = decide(x, weights, orders[1], starts, sums, num_buckets, count, floor, total, setting)
        if token != _NOWHERE:
            break
    return token


def _raised(weights, vocab, floor, top_k):
    """A floor up to which there are at least `top_k` tokens too, and not many more: of a flat distribution a large part
    of the vocabulary lies above any fixed one."""
    room, size = weights.ctypes.data, (vocab + LANES - 1) // LANES * LANES
    if count_from(room, size, np.float32(floor)) <= 2 * top_k + _ENOUGH:
        return floor
    too_high = 2.0
    for _ in range(_NUM_LOOKS):
        # To fp32, so that it is the number that is compared with.
        middle = np.float32(math.sqrt(floor * too_high))
        count = count_from(room, size, middle)
        if count < top_k:
            too_high = float(middle)
        else:
            floor = float(middle)
            if count <= top_k + top_k // 4 + _ENOUGH:
                break
    return floor


def _gather(weights, vocab, floor, order):
    """The tokens with a weight of at least `floor`, at the start of `order`; returns how many."""
    count, room = 0, weights.ctypes.data
    for first in range(0, vocab, LANES):
        found, token = lanes_from(room + first * 4, floor), first
        while found:
            if found & 1:
                order[count] = token
                count += 1
            found, token = found >> 1, token + 1
    return count


def _gather_equal(x, vocab, most, limit, order):
    """The first tokens with the logit `most`, at the start of `order`, up to a limit; returns how many."""
    count, whole = 0, vocab // LANES * LANES
    for first in range(0, vocab, LANES):
        if first < whole and lanes_from(x + first * 4, most) == 0:
            continue
        for token in range(first, min(first + LANES, vocab)):
            if number_at(x + token * 4) == most:
                order[count] = token
                count += 1
                if count == limit:
                    return count
    return count


def _decide(x, weights, order, starts, sums, num_buckets, count, floor, total, setting):
    """The token that is drawn, if the `count` tokens of `order` decide; or -1.

    They are all those with a weight of at least `floor`; `total` is the weight of all there are.
    """
    top_k, top_p, min_p = int(setting[1]), setting[2], setting[3]
    end, is_cut, mass = count, floor == _LAST_FLOOR, total
    if top_k > 0:
        if top_k > count and not is_cut:
            return _NOWHERE
        end, is_cut = min(top_k, count), True
        mass = mass_of(x, weights, order, starts, sums, num_buckets, end)
    if top_p < 1.0:
        rank, reached = find(x, weights, order, starts, sums, num_buckets, top_p * mass, True)
        if rank == count and not is_cut:
            return _NOWHERE
        if rank < end:
            end, is_cut, mass = rank + 1, True, reached
    if min_p > 0.0:
        if floor > min_p and not is_cut:
            return _NOWHERE
        num_likely = 0
        for place in range(count):
            num_likely += weights[order[place]] >= min_p
        end, is_cut = max(min(end, num_likely), 1), True
        mass = mass_of(x, weights, order, starts, sums, num_buckets, end)
    rank, reached = find(x, weights, order, starts, sums, num_buckets, setting[4] * mass, False)
    if rank >= end:
        if not is_cut:
            return _NOWHERE
        rank = end - 1
        mass_of(x, weights, order, starts, sums, num_buckets, end)
    return order[rank]
