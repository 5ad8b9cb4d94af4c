"""What a profile says, put together: operations with the lines that asked for them, on one time that begins at 0."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pie_engine.protocol.profile import (
    AnyEntry,
    Call,
    Core,
    End,
    ForkTimes,
    Head,
    OperationTimes,
    Ran,
    Span,
    StepTimes,
    Wait,
)

T = TypeVar("T", bound=AnyEntry)
AUTOMATIC = re.compile(r"Task-\d+")
"""A name that asyncio has given."""
ENDS_WAIT = frozenset(
    {
        "context.finish-flush",
        "context.finish-save",
        "forward.finish",
        "generate.next",
        "generate.stop",
        "generate.finish-search",
        "matcher.finish-look",
        "scheduling.finish-look",
        "session.finish-receive",
        "session.finish-drain",
        "runtime.next-of-child",
        "futures.forget",
    }
)
STARTS = frozenset(
    {
        "context.flush",
        "context.save",
        "forward.start",
        "generate.start",
        "generate.search",
        "matcher.look",
        "scheduling.look",
        "session.receive",
        "session.drain",
        "runtime.launch",
    }
)


@dataclass
class Operation:
    """One future of the program: what the core, or the client, did for it. Times in microseconds since the launch."""

    start: Call
    end: Call | None = None
    """The last call that took something of it."""
    times: list[OperationTimes] = field(default_factory=list)
    """More than one if its program steered it after its end."""
    model: str = ""

    @property
    def is_of_client(self) -> bool:
        """It waits for a message, or for that one was seen."""
        return self.start.function.startswith("session.")

    @property
    def is_child(self) -> bool:
        return self.start.function == "runtime.launch"

    @property
    def kind(self) -> str:
        return self.times[0].kind if self.times else self.start.function.partition(".")[2]

    @property
    def num_prefill(self) -> int:
        return sum(times.num_prefill for times in self.times)

    @property
    def last(self) -> OperationTimes | None:
        return self.times[-1] if self.times else None


@dataclass
class Profile:
    """One process."""

    program: str
    version: str
    pid: str
    launched: float
    """Seconds since the epoch."""
    wall_us: int
    outcome: str
    """`return`, the code of its error, or empty: it still ran, or was cut off."""
    calls: list[Call]
    waits: list[Wait]
    runs: list[Ran]
    operations: dict[int, Operation]
    """By future."""
    steps: dict[str, list[StepTimes]]
    """By model."""
    forks: list[ForkTimes]
    num_pages: dict[str, int]
    """By model."""
    tasks: list[str]
    """In the order in which they first called."""
    full_mb: float | None = None
    """It was cut off at this limit."""

    @property
    def is_whole(self) -> bool:
        return bool(self.outcome)


def build(entries: Sequence[AnyEntry], full_mb: float | None = None) -> Profile:
    """`entries` begin with a `Head`."""
    head = entries[0]
    assert isinstance(head, Head), head
    zero = head.at
    names = _Names()
    calls = [_call(each, zero, names) for each in entries if isinstance(each, Call)]
    waits = [Wait(each.at - zero, each.took, each.has_timeout, each.num_ready) for each in _of(entries, Wait)]
    runs = [Ran(each.at - zero, each.took, each.cpu) for each in _of(entries, Ran)]
    ends = _of(entries, End)
    operations = _operations(calls)
    steps: dict[str, list[StepTimes]] = {}
    num_pages: dict[str, int] = {}
    forks: list[ForkTimes] = []
    for core in _of(entries, Core):
        num_pages[core.model] = core.num_pages
        steps.setdefault(core.model, []).extend(_shifted_step(each, zero) for each in core.steps)
        forks += [ForkTimes(each.at - zero, *_rest(each)) for each in core.forks]
        for times in core.operations:
            operation = operations.get(times.op)
            if operation is not None:
                operation.model = core.model
                operation.times.append(_shifted(times, zero))
    last = [0, *(call.at + call.took for call in calls[-1:]), *(run.at + run.took for run in runs[-1:])]
    last += [step.at + step.took for each in steps.values() for step in each[-1:]]
    wall_us = ends[0].at - zero if ends else max(last)
    outcome = ends[0].outcome if ends else ""
    who = head.program, head.version, head.pid, head.launched
    return Profile(
        *who, wall_us, outcome, calls, waits, runs, operations, steps, forks, num_pages, names.known, full_mb
    )


class _Names:
    """Tasks that have no name of their own are numbered as they come, from 2: the one that runs `main` is called so."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self._shown: dict[str, str] = {}
        self._num_automatic = 0

    def of(self, task: str) -> str:
        if not task:
            return ""
        shown = self._shown.get(task)
        if shown is None:
            shown = task
            if AUTOMATIC.fullmatch(task):
                self._num_automatic += 1
                shown = f"task {self._num_automatic + 1}"
            self._shown[task] = shown
            self.known.append(shown)
        return shown


def _of(entries: Iterable[AnyEntry], kind: type[T]) -> list[T]:
    return [each for each in entries if isinstance(each, kind)]


def _call(call: Call, zero: int, names: _Names) -> Call:
    task = names.of(call.task)
    return Call(call.at - zero, call.took, call.place, task, call.function, call.handle, call.ctx, call.detail)


def _operations(calls: Iterable[Call]) -> dict[int, Operation]:
    found: dict[int, Operation] = {}
    for call in calls:
        if not call.handle:
            continue
        if call.function in STARTS:
            found[call.handle] = Operation(call)
        elif call.function in ENDS_WAIT and call.handle in found:
            found[call.handle].end = call
    return found


def _rest(fork: ForkTimes) -> tuple[int, int, int, int]:
    return fork.ctx, fork.child, fork.length, fork.num_uncomputed


def _shifted_step(step: StepTimes, zero: int) -> StepTimes:
    counts = step.num_prefill, step.num_decode, step.num_sequences, step.num_free_pages, step.num_held_pages
    return StepTimes(step.number, step.at - zero, step.took, *counts, step.mine)


def _shifted(times: OperationTimes, zero: int) -> OperationTimes:
    def moved(time: int) -> int:
        return time - zero if time else 0

    page_waits: list[Span] = [(begin - zero, end - zero) for begin, end in times.page_waits]
    return OperationTimes(
        times.op,
        times.ctx,
        times.kind,
        moved(times.queued),
        moved(times.begun),
        moved(times.admitted),
        moved(times.prefilled),
        moved(times.ended),
        times.num_prefill,
        times.num_steps,
        times.prompt,
        times.cached,
        times.completion,
        times.drafted,
        times.accepted,
        page_waits,
        times.num_copies,
        moved(times.compiling),
    )
