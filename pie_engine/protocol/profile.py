"""A profile: when a program called its host and waited, and what the cores did for it meanwhile.

Travels as events of kind `trace` whose `tap` is `profile`. All times are microseconds of the machine's monotonic clock,
which its processes share; the one of `Head` is where the profile begins.
"""

from __future__ import annotations

from typing import Any

import msgspec

VERSION = 1

Span = tuple[int, int]
"""From and to, in microseconds."""


class Times(msgspec.Struct, frozen=True, array_like=True):
    """Base of what a core says."""


class OperationTimes(Times, frozen=True):
    """One flush, pass, plan or search, as its core has seen it. A time that is 0: it did not come to that."""

    op: int
    """Its future."""
    ctx: int
    kind: str
    """`plan`, `pass`, `flush`, `search`, `save`, `look`."""
    queued: int
    begun: int = 0
    """Its turn on its context had come."""
    admitted: int = 0
    """The first step that it was in began."""
    prefilled: int = 0
    """The step was over in which the last token of its prompt ran."""
    ended: int = 0
    num_prefill: int = 0
    """Tokens that ran until then."""
    num_steps: int = 0
    prompt: int = 0
    """These five as in `Usage`."""
    cached: int = 0
    completion: int = 0
    drafted: int = 0
    accepted: int = 0
    page_waits: list[Span] = []
    """When it could not run for want of KV pages."""
    num_copies: int = 0
    """Pages that were copied for it, since another context shares them."""


class StepTimes(Times, frozen=True):
    """One step of a core in which the process had something to do, or waited to."""

    number: int
    at: int
    took: int
    num_prefill: int
    """Tokens of prompts, and of replies, of all programs."""
    num_decode: int
    num_sequences: int
    num_free_pages: int
    num_held_pages: int
    """Of this process, as they were counted last."""
    mine: list[tuple[int, int]] = []
    """Operations of the process that ran, and how many tokens of each."""


class ForkTimes(Times, frozen=True):
    """A context was forked."""

    at: int
    ctx: int
    child: int
    length: int
    num_uncomputed: int
    """Of its tokens, those that every child has to compute for itself."""


class Entry(msgspec.Struct, frozen=True, array_like=True, tag=str.lower):
    """Base of what a profile holds."""


class Head(Entry, frozen=True):
    """The first entry."""

    at: int
    program: str
    version: str
    pid: str
    launched: float
    """Seconds since the epoch."""


class Call(Entry, frozen=True):
    """A call to the host that does not wait."""

    at: int
    took: int
    place: str
    """Line of the program, as `main.py:12 in main`; empty where none is known."""
    task: str
    """Of asyncio."""
    function: str
    """As `context.append-text`."""
    handle: int = 0
    """The future that it gave or asked about."""
    ctx: int = 0
    detail: dict[str, Any] = {}
    """`tokens`, `child`, `grammar`, `speculation`, `finish`, `error`."""


class Wait(Entry, frozen=True):
    """The whole program waited."""

    at: int
    took: int
    has_timeout: bool
    """It would have gone on by itself: something sleeps."""
    num_ready: int


class Ran(Entry, frozen=True):
    """The program ran, without a wait in between."""

    at: int
    took: int
    cpu: int
    """Processor time, that of the calls in between with it."""


class Core(Entry, frozen=True):
    """From the core of a model."""

    model: str
    num_pages: int
    page_size: int
    operations: list[OperationTimes] = []
    steps: list[StepTimes] = []
    forks: list[ForkTimes] = []


class End(Entry, frozen=True):
    """The last entry, unless the process was cut off."""

    at: int
    outcome: str
    """`return`, or the code of the error."""


AnyEntry = Head | Call | Wait | Ran | Core | End
_decode = msgspec.msgpack.Decoder(list[AnyEntry]).decode


def decode(packed: bytes) -> list[AnyEntry]:
    """The entries of a payload. Raises `msgspec.DecodeError`."""
    return _decode(packed)
