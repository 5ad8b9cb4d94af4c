"""A profile: when a program called its host and waited, and what the cores did for it meanwhile.

Travels as events of kind `trace` whose `tap` is `profile`: a `Head`, then a `Batch` now and then, and an `End`. Whoever
reads them gets entries. All times are microseconds of the machine's monotonic clock, which its processes share; the one
of `Head` is where the profile begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import msgspec

VERSION = 2

Span = tuple[int, int]
"""From and to, in microseconds."""


class OperationTimes(msgspec.Struct, array_like=True, gc=False):
    """One flush, pass, plan or search, as its core has seen it. A time that is 0: it did not come to that.

    Its core fills it in as it goes.
    """

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
    compiling: int = 0
    """Its turn had come, but not its grammar, which was being compiled until `begun`; 0: that was there."""


class StepTimes(msgspec.Struct, frozen=True, array_like=True, gc=False):
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


class ForkTimes(msgspec.Struct, frozen=True, array_like=True, gc=False):
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

# On the way: a host writes thousands of calls a second down, so these are rows of numbers, which cost it and its
# compression a fraction of what an entry each does.

CALL_COLUMNS, WAIT_COLUMNS, RUN_COLUMNS = 6, 4, 3
NO_TOKENS = -1

Site = tuple[str, str, str]
"""Place, task and function of calls."""


class Batch(Entry, frozen=True):
    """What was noted for a while. `calls`, `waits` and `runs` are rows one behind the other; the first column of each
    is the time since the row before it began, of the first row since the clock's zero."""

    sites: list[Site]
    calls: list[int]
    """Since, took, number of its site, handle, ctx, and the `tokens` of its detail or `NO_TOKENS`."""
    details: list[tuple[int, dict[str, Any]]]
    """By number of the call, what else its detail has."""
    waits: list[int]
    """Since, took, has_timeout, num_ready."""
    runs: list[int]
    """Since, took, cpu."""
    cores: list[Core]


_decode = msgspec.msgpack.Decoder(list[Head | Batch | End]).decode


def decode(packed: bytes) -> list[AnyEntry]:
    """The entries of a payload, those of each kind in their order. Raises `msgspec.DecodeError`."""
    found: list[AnyEntry] = []
    for part in _decode(packed):
        if isinstance(part, Batch):
            found += _entries_of(part)
        else:
            found.append(part)
    return found


def _entries_of(batch: Batch) -> Iterator[AnyEntry]:
    """Raises `msgspec.DecodeError` for what is no batch in spite of its types."""
    try:
        yield from _calls_of(batch)
    except IndexError as error:
        raise msgspec.DecodeError("a call of no site") from error
    yield from (Wait(at, took, bool(timeout), ready) for at, took, timeout, ready in _rows(batch.waits, WAIT_COLUMNS))
    yield from (Ran(*row) for row in _rows(batch.runs, RUN_COLUMNS))
    yield from batch.cores


def _calls_of(batch: Batch) -> Iterator[Call]:
    details: dict[int, dict[str, Any]] = {}
    for number, detail in batch.details:
        details.setdefault(number, {}).update(detail)
    for number, (at, took, site, handle, ctx, num_tokens) in enumerate(_rows(batch.calls, CALL_COLUMNS)):
        counted = {} if num_tokens == NO_TOKENS else {"tokens": num_tokens}
        yield Call(at, took, *batch.sites[site], handle, ctx, {**counted, **details.get(number, {})})


def _rows(numbers: list[int], num_columns: int) -> Iterator[tuple[int, ...]]:
    """With times instead of what lies between them."""
    if len(numbers) % num_columns:
        raise msgspec.DecodeError("a row is cut off")
    columns = [numbers[column::num_columns] for column in range(num_columns)]
    return zip(accumulate(columns[0]), *columns[1:], strict=True)
