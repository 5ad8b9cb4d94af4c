"""Bulk data as it crosses to the host: base64 of little-endian bytes."""

from __future__ import annotations

import base64
import struct
import sys
from array import array
from collections.abc import Iterable

_PAIR = struct.Struct("<If")


def pack_tokens(tokens: Iterable[int]) -> str:
    """Token ids as base64 of little-endian u32. Raises `OverflowError` for what is no token id."""
    return base64.b64encode(_swapped(array("I", tokens)).tobytes()).decode("ascii")


def unpack_tokens(packed: str) -> list[int]:
    """Token ids from base64 of little-endian u32."""
    return _swapped(array("I", base64.b64decode(packed))).tolist()


def unpack_top(packed: str) -> list[tuple[int, float]]:
    """(token id, log-probability) pairs from base64 of little-endian (u32, f32)."""
    return list(_PAIR.iter_unpack(base64.b64decode(packed)))


def pack_pairs(pairs: Iterable[tuple[int, float]]) -> str:
    """(token id, number) pairs as base64 of little-endian (u32, f32)."""
    return base64.b64encode(b"".join([_PAIR.pack(*pair) for pair in pairs])).decode("ascii")


def unpack_floats(packed: str) -> array[float]:
    """Numbers from base64 of little-endian f32."""
    numbers = array("f", base64.b64decode(packed))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _swapped(tokens: array[int]) -> array[int]:
    if sys.byteorder == "big":
        tokens.byteswap()
    return tokens
