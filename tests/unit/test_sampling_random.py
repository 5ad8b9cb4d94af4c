"""The counter-based generator is uniform, and its streams and positions are independent."""

from __future__ import annotations

import itertools
import math

import pytest

from pie_engine.sampling.random import start_of, stream_key, uniform, uniforms_from

NUM_BINS = 64


def chi_square(counts: list[int]) -> float:
    """Normalised: about standard normal when all bins are equally likely."""
    expected = sum(counts) / len(counts)
    statistic = sum((count - expected) ** 2 / expected for count in counts)
    freedom = len(counts) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


def binned(values: list[float]) -> list[int]:
    counts = [0] * NUM_BINS
    for value in values:
        counts[int(value * NUM_BINS)] += 1
    return counts


def binned_pairs(pairs: list[tuple[float, float]], side: int = 16) -> list[int]:
    counts = [0] * (side * side)
    for left, right in pairs:
        counts[int(left * side) * side + int(right * side)] += 1
    return counts


def test_numbers_are_the_same_on_every_machine() -> None:
    assert stream_key(0) == 8493733112532773764
    assert stream_key(42, (0, 3)) == 8576446650168823949
    assert uniform(stream_key(42), 0) == 0.12753491230556724
    assert uniform(stream_key(42), 1000) == 0.8408861556201445


def test_keys_tell_seed_and_lineage_apart() -> None:
    paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (10,), (1, 0, 0)]
    keys = [stream_key(seed, path) for seed, path in itertools.product([-1, 0, 1, 10, 2**70], paths)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)


def test_numbers_lie_in_the_unit_interval() -> None:
    values = [uniform(key, position) for key in (0, 2**64 - 1) for position in (*range(1000), 2**31, 2**63)]
    assert all(0 <= value < 1 for value in values)


def test_many_numbers_at_once_are_the_same() -> None:
    keys = [0, 2**64 - 1, *(stream_key(seed) for seed in range(98))]
    positions = [2**63, 0, 1, 2**31, *range(96)]
    starts = zip(keys, positions, strict=True)
    expected = [[uniform(key, position + number) for number in range(9)] for key, position in starts]
    assert uniforms_from([start_of(key) for key in keys], positions, 9) == expected


@pytest.mark.parametrize("key", [0, 1, stream_key(7)])
def test_positions_of_one_stream_are_uniform(key: int) -> None:
    assert abs(chi_square(binned([uniform(key, position) for position in range(50_000)]))) < 4


@pytest.mark.parametrize("position", [0, 1, 1000])
def test_streams_are_uniform_at_one_position(position: int) -> None:
    assert abs(chi_square(binned([uniform(key, position) for key in range(50_000)]))) < 4


def test_neighbouring_positions_are_independent() -> None:
    key = stream_key(1)
    values = [uniform(key, position) for position in range(50_001)]
    assert abs(chi_square(binned_pairs(list(itertools.pairwise(values))))) < 4


def test_neighbouring_keys_are_independent() -> None:
    """Forks of one context: siblings at the same position, and plain consecutive integers."""
    forks = [uniform(stream_key(3, (index,)), 17) for index in range(20_001)]
    plain = [uniform(index, 17) for index in range(20_001)]
    for values in (forks, plain):
        assert abs(chi_square(binned_pairs(list(itertools.pairwise(values)), side=8))) < 4


def test_each_bit_is_fair() -> None:
    integers = [int(uniform(stream_key(5), position) * 2**53) for position in range(20_000)]
    for bit in range(53):
        ones = sum(value >> bit & 1 for value in integers)
        assert abs(ones - 10_000) < 4 * math.sqrt(20_000) / 2 + 60, bit
