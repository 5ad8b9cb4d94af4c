"""Time and randomness of guests that are recorded or replayed: WASI's functions for them, in place of wasmtime's own.

Everything in a guest that depends on the clock or on chance comes through these few imports, whatever the language:
`time`, `datetime`, asyncio's timers, `random`, `secrets`, `uuid`, the keys of Rust's hash maps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from wasmtime.component import FuncType, OwnType

from pie_engine.errors import Unsupported
from pie_engine.host.values import VALUE_BYTES, Encoder, decoder_of, encoder_of, error_address

INTERFACES = ("wasi:clocks/", "wasi:random/")
RESOLUTION_NS = 1


class Surroundings(Protocol):
    """Where a guest is, as far as it can tell."""

    def monotonic_ns(self) -> int: ...

    def wall_ns(self) -> int:
        """Since the epoch."""

    def random_bytes(self, count: int) -> bytes: ...


class RealSurroundings:
    """The machine's own."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)


class StillSurroundings:
    """Where nothing ever changes."""

    def monotonic_ns(self) -> int:
        return 0

    def wall_ns(self) -> int:
        return 0

    def random_bytes(self, count: int) -> bytes:
        return bytes(count)


class Datetime(NamedTuple):
    """`wall-clock.datetime`"""

    seconds: int
    nanoseconds: int


def _datetime(ns: int) -> Datetime:
    return Datetime(*divmod(ns, 1_000_000_000))


def _u64(surroundings: Surroundings) -> int:
    return int.from_bytes(surroundings.random_bytes(8), "little")


def _waits(_surroundings: Surroundings, _time: int) -> None:
    raise Unsupported("a component that waits inside WASI cannot be recorded", hint="wait with `futures.wait-any`")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "monotonic-clock.now": lambda surroundings: surroundings.monotonic_ns(),
    "monotonic-clock.resolution": lambda _surroundings: RESOLUTION_NS,
    "monotonic-clock.subscribe-instant": _waits,
    "monotonic-clock.subscribe-duration": _waits,
    "wall-clock.now": lambda surroundings: _datetime(surroundings.wall_ns()),
    "wall-clock.resolution": lambda _surroundings: _datetime(RESOLUTION_NS),
    "random.get-random-bytes": lambda surroundings, count: surroundings.random_bytes(count),
    "random.get-random-u64": _u64,
    "insecure.get-insecure-random-bytes": lambda surroundings, count: surroundings.random_bytes(count),
    "insecure.get-insecure-random-u64": _u64,
    "insecure-seed.insecure-seed": lambda surroundings: (_u64(surroundings), _u64(surroundings)),
}


def replaces(interface: str) -> bool:
    """Whether the functions of this one are all here."""
    return interface.startswith(INTERFACES) and _short(interface) in {name.partition(".")[0] for name in FUNCTIONS}


def body_of(interface: str, name: str, kind: FuncType, owner: Callable[[], Any]) -> Callable[..., int]:
    """The callback of a function, for the `surroundings` of whoever is the `owner` then."""
    function = FUNCTIONS[f"{_short(interface)}.{name}"]
    decoders = [(decoder_of(parameter), i * VALUE_BYTES) for i, (_, parameter) in enumerate(kind.params)]
    # What gives a resource only ever refuses.
    gives_nothing = kind.result is None or isinstance(kind.result, OwnType)
    encode: Encoder | None = None if gives_nothing else encoder_of(kind.result)  # type: ignore[arg-type]

    def body(_env: Any, _context: Any, _type: Any, args: int, _nargs: int, results: int, _nresults: int) -> int:
        try:
            value = function(owner().surroundings, *[decode(args + offset) for decode, offset in decoders])
            if encode is not None:
                encode(value, results)
            return 0
        except BaseException as error:
            return error_address(f"{name}: {error}")

    return body


def _short(interface: str) -> str:
    return interface.rpartition("/")[2].partition("@")[0]
