"""Counter-based random numbers: a pure function of who asks (seed, lineage) and where (position).

A draw never depends on the batch, on what was drawn before, or on the machine. Plain integers, no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
"""2^64 / golden ratio: consecutive counters land far apart (Steele, Lea, Flood 2014, SplitMix)."""

_FACTORS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""SplitMix64's."""
_ODD = 0xD1342543DE82EF95
"""A multiplier of its own for what is not the position (Steele, Vigna 2021, a multiplier for 64-bit generators)."""


def stream_key(seed: int, lineage: tuple[int, ...] = ()) -> int:
    """The 64-bit key of one stream: `lineage` is the path of forks and rewinds that led to it."""
    text = ",".join(map(str, (seed, *lineage)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniform(key: int, position: int, index: int = 0) -> float:
    """The random number in [0, 1) of stream `key` at `position`, with 53 bits; `index` tells several of one apart."""
    return uniform_at(start_of(key), position, index)


def start_of(key: int) -> int:
    """What all numbers of a stream have in common, for `uniform_at`."""
    return _mix(key & _MASK)


def uniform_at(start: int, position: int, index: int = 0) -> float:
    """`uniform` of the stream that `start_of` was asked about."""
    if index:
        start = _mix(start + index * _ODD & _MASK)
    mixed = _mix(start + (position + 1) * _GAMMA & _MASK)
    return (mixed >> 11) * 2.0**-53


def uniforms_from(starts: Sequence[int], positions: Sequence[int], count: int) -> list[list[float]]:
    """`uniform_at` of many streams, of each at `count` positions from one of its own on."""
    counters = np.array(positions, np.uint64)[:, None] + np.arange(1, count + 1, dtype=np.uint64)
    z: np.ndarray = np.array(starts, np.uint64)[:, None] + counters * np.uint64(_GAMMA)
    z = (z ^ z >> np.uint64(30)) * np.uint64(_FACTORS[0])
    z = (z ^ z >> np.uint64(27)) * np.uint64(_FACTORS[1])
    z ^= z >> np.uint64(31)
    numbers: list[list[float]] = ((z >> np.uint64(11)) * 2.0**-53).tolist()
    return numbers


def _mix(z: int) -> int:
    """SplitMix64's finalizer: a bijection in which each input bit flips each output bit half of the time."""
    z = (z ^ z >> 30) * _FACTORS[0] & _MASK
    z = (z ^ z >> 27) * _FACTORS[1] & _MASK
    return z ^ z >> 31
