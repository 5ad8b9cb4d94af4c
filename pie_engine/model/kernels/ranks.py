"""Tokens by their rank, the likeliest first, without sorting them all.

They go into buckets of nearly equal weight, and only a bucket in which something ends is put in order.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from pie_engine.model.kernels.jit import compiled
from pie_engine.model.kernels.vector import number_at

LISTS = "int64, float32[::1], int64[::1], int64[::1], float64[::1]"
"""The types of a row's logits, and of the weights, order, starts and sums that are kept of it (see `_fill_buckets`)."""
_ONE = 0x3F800000
"""The bits of 1.0 in fp32; those of the numbers below it fall as they do."""
NUM_BUCKETS = (_ONE >> 17) + 2
"""At most: 64 for each halving, where the weights are any. There are no more than tokens."""
_FEW = 32
"""Tokens that are put in order by insertion."""


@dataclass(frozen=True)
class RankKernels:
    """See the functions below."""

    fill_buckets: Any
    find: Any
    mass_of: Any


@functools.cache
def rank_kernels() -> RankKernels:
    put_in_order = compiled("void(int64[::1], int64, int64, int64)", name="put_in_order")(_put_in_order)
    return RankKernels(
        fill_buckets=compiled(f"int64({LISTS}, int64, int64[::1])", name="fill_buckets")(_fill_buckets),
        find=compiled(
            f"Tuple((int64, float64))({LISTS}, int64, float64, bool_)", name="find", put_in_order=put_in_order
        )(_find),
        mass_of=compiled(f"float64({LISTS}, int64, int64)", name="mass_of", put_in_order=put_in_order)(_mass_of),
    )


def _fill_buckets(x, weights, order, starts, sums, count, tokens):
    """Sort `tokens[:count]` by buckets into `order`; returns how many buckets there are.

    Bucket b has the places `starts[b] ... starts[b + 1] - 1` and the weight `sums[b]`. Few tokens go into one.
    """
    starts[0] = 0
    if count <= _FEW:
        sums[0] = 0.0
        for place in range(count):
            order[place] = tokens[place]
            sums[0] += weights[tokens[place]]
        starts[1] = count
        return 1
    bits = weights.view(np.int32)
    farthest, shift = 0, 0
    for place in range(count):
        farthest = max(farthest, _ONE - bits[tokens[place]])
    while farthest >> shift >= min(count, NUM_BUCKETS - 1):
        shift += 1
    num_buckets = (farthest >> shift) + 1
    for bucket in range(num_buckets + 1):
        starts[bucket] = 0
        sums[bucket] = 0.0
    for place in range(count):
        token = tokens[place]
        bucket = max(_ONE - bits[token], 0) >> shift
        starts[bucket] += 1
        sums[bucket] += weights[token]
    end = 0
    for bucket in range(num_buckets):
        end += starts[bucket]
        starts[bucket] = end
    starts[num_buckets] = end
    # From the last to the first, so that of equal ones the first token comes first.
    for place in range(count - 1, -1, -1):
        token = tokens[place]
        bucket = max(_ONE - bits[token], 0) >> shift
        starts[bucket] -= 1
        order[starts[bucket]] = token
    return num_buckets


def _find(x, weights, order, starts, sums, num_buckets, goal, is_reached_at):
    """The place at which the weight so far goes past `goal`, or gets to it if it `is_reached_at` the goal itself; and
    the weight there. Behind the last one if nowhere."""
    reached = 0.0
    for bucket in range(num_buckets):
        if reached + sums[bucket] < goal or (not is_reached_at and reached + sums[bucket] == goal):
            reached += sums[bucket]
            continue
        put_in_order(order, starts[bucket], starts[bucket + 1], x)
        for place in range(starts[bucket], starts[bucket + 1]):
            reached += weights[order[place]]
            if reached > goal or (is_reached_at and reached == goal):
                return place, reached
    return starts[num_buckets], reached


def _mass_of(x, weights, order, starts, sums, num_buckets, end):
    """The weight of the first `end` tokens; the last of them is in its place."""
    mass, bucket = 0.0, 0
    while starts[bucket + 1] < end:
        mass += sums[bucket]
        bucket += 1
    put_in_order(order, starts[bucket], starts[bucket + 1], x)
    for place in range(starts[bucket], end):
        mass += weights[order[place]]
    return mass


def _put_in_order(order, first, end, x):
    """Sort `order[first:end]`: the largest logit first, of equal ones the first token."""
    is_sorted = True
    for place in range(first + 1, end):
        before, after = number_at(x + order[place - 1] * 4), number_at(x + order[place] * 4)
        if before < after or (before == after and order[place - 1] > order[place]):
            is_sorted = False
            break
    if is_sorted:
        return
    if end - first <= _FEW:
        for start in range(first + 1, end):
            token, place = order[start], start
            value = number_at(x + token * 4)
            while place > first:
                rival = number_at(x + order[place - 1] * 4)
                if rival > value or (rival == value and order[place - 1] < token):
                    break
                order[place] = order[place - 1]
                place -= 1
            order[place] = token
        return
    # Heapsort: what comes last is on top of the heap, and goes to its end.
    count = end - first
    for step in range(count // 2 + count - 1):
        if step < count // 2:
            place, size = count // 2 - 1 - step, count
            token = order[first + place]
        else:
            place, size = 0, count - 1 - (step - count // 2)
            token = order[first + size]
            order[first + size] = order[first]
        value = number_at(x + token * 4)
        while 2 * place + 1 < size:
            child = 2 * place + 1
            last = number_at(x + order[first + child] * 4)
            if child + 1 < size:
                rival = number_at(x + order[first + child + 1] * 4)
                if rival < last or (rival == last and order[first + child + 1] > order[first + child]):
                    child, last = child + 1, rival
            if value < last or (value == last and token > order[first + child]):
                break
            order[first + place] = order[first + child]
            place = child
        order[first + place] = token
