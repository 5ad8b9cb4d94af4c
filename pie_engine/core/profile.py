"""What a core writes down of the processes that are profiled: times of their operations, and the steps meanwhile.

A process that is not profiled costs a look at `process.profile` for each operation, and nothing for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pie_engine.kv.integrity import distinct_pages
from pie_engine.kv.pool import PagePool
from pie_engine.protocol.plan import NO_USAGE
from pie_engine.protocol.profile import ForkTimes, OperationTimes, StepTimes
from pie_engine.protocol.to_host import Profiled

if TYPE_CHECKING:
    from pie_engine.core.claims import Claims
    from pie_engine.core.operation import Operation
    from pie_engine.core.scheduler import Batch
    from pie_engine.core.state import Context, Process

MAX_STEPS = 64
"""Of a message."""
COUNT_PAGES_EVERY_US = 50_000
"""Pages of a process are counted one by one."""
MAX_PAGE_WAITS = 64
"""Of an operation; the last one then goes on to the end of what is left out."""


class _Seen:
    """An operation that is under way. Times that are 0: it has not come to that."""

    __slots__ = (
        "_admitted",
        "_num_prefill",
        "_num_steps",
        "_operation",
        "_page_waits",
        "_prefilled",
        "_queued",
        "begun",
        "num_copies",
        "waits_since",
    )

    def __init__(self, operation: Operation, queued: int) -> None:
        self._operation = operation
        self._queued = queued
        self.begun = 0
        self.num_copies = 0
        self._admitted = 0
        self._prefilled = 0
        self._num_prefill = 0
        self._num_steps = 0
        self._page_waits: list[tuple[int, int]] = []
        self.waits_since = 0
        """For pages."""

    def ran(self, num_tokens: int, at: int, ended: int) -> None:
        """It was in a step."""
        self._num_steps += 1
        if self._prefilled:
            return
        self._admitted = self._admitted or at
        self._num_prefill += num_tokens
        if num_tokens >= self._operation.kv.num_uncomputed:
            self._prefilled = ended

    def note_pages(self, lacks_pages: bool, now: int) -> None:
        if lacks_pages and not self.waits_since:
            self.waits_since = now
        elif not lacks_pages and self.waits_since:
            if len(self._page_waits) == MAX_PAGE_WAITS:
                self._page_waits[-1] = (self._page_waits[-1][0], now)
            else:
                self._page_waits.append((self.waits_since, now))
            self.waits_since = 0

    def times(self, ended: int) -> OperationTimes:
        """All of it."""
        self.note_pages(False, ended)
        operation = self._operation
        usage = operation.usage if operation.has_begun else NO_USAGE
        return OperationTimes(
            operation.op,
            operation.context.ctx,
            operation.kind,
            self._queued,
            self.begun,
            self._admitted,
            self._prefilled,
            ended,
            self._num_prefill,
            self._num_steps,
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
            usage.drafted_tokens,
            usage.accepted_tokens,
            self._page_waits,
            self.num_copies,
        )


class _Step(NamedTuple):
    """What is the same for all who are profiled."""

    number: int
    at: int
    took: int
    num_prefill: int
    num_decode: int
    num_tokens: Sequence[int]
    """Of each row, without guesses."""


class ProcessProfile:
    """Of one process; what it has to say goes out when one of its operations is over."""

    def __init__(self, process: Process, pool: PagePool, claims: Claims, clock: Callable[[], float]) -> None:
        self._process = process
        self._pool = pool
        self._claims = claims
        self._clock = clock
        self._under_way: dict[Operation, _Seen] = {}
        self._over: list[OperationTimes] = []
        self._steps: list[StepTimes] = []
        self._forks: list[ForkTimes] = []
        self._num_held = 0
        self._counted_at = 0

    # Operations.

    def queued(self, operation: Operation) -> None:
        if operation.op >= 0:  # programs do not know of beams
            self._under_way[operation] = _Seen(operation, self._now())

    def begun(self, operation: Operation) -> None:
        if (seen := self._under_way.get(operation)) is not None:
            seen.begun = self._now()

    def copied(self, operation: Operation) -> None:
        """A page was copied for it."""
        if (seen := self._under_way.get(operation)) is not None:
            seen.num_copies += 1

    def ended(self, operation: Operation) -> None:
        if (seen := self._under_way.pop(operation, None)) is not None:
            self._over.append(seen.times(self._now()))
            self.send()

    def forked(self, context: Context, child: Context) -> None:
        kv = child.kv
        self._forks.append(ForkTimes(self._now(), context.ctx, child.ctx, kv.num_tokens, kv.num_uncomputed))

    # Steps.

    def look(self) -> None:
        """Who waits for pages?"""
        for operation, seen in self._under_way.items():
            lacks_pages = operation.is_runnable and self._claims.lacks_pages(operation.context)
            if lacks_pages or seen.waits_since:
                seen.note_pages(lacks_pages, self._now())

    def stepped(self, step: _Step, batch: Batch) -> None:
        """`batch` has run, and nothing of it is settled."""
        under_way = self._under_way
        if not under_way:
            return
        at, ended, mine = step.at, step.at + step.took, []
        for (operation, _), num_tokens in zip(batch, step.num_tokens, strict=True):
            if (seen := under_way.get(operation)) is not None:
                mine.append((operation.op, num_tokens))
                seen.ran(num_tokens, at, ended)
        if at - self._counted_at > COUNT_PAGES_EVERY_US:
            self._counted_at = at
            self._num_held = len(distinct_pages(context.kv for context in self._process.contexts.values()))
        self._steps.append(
            StepTimes(
                step.number,
                at,
                step.took,
                step.num_prefill,
                step.num_decode,
                len(batch),
                self._pool.num_free,
                self._num_held,
                mine,
            )
        )
        if len(self._steps) >= MAX_STEPS:
            self.send()

    def send(self) -> None:
        """What there is, to the host."""
        over, self._over = self._over, []
        steps, self._steps = self._steps, []
        forks, self._forks = self._forks, []
        pool = self._pool
        self._process.host.send(Profiled(self._process.pid, pool.num_pages, pool.page_size, over, steps, forks))

    def _now(self) -> int:
        return round(self._clock() * 1e6)


class Profiler:
    """All processes of a core that are profiled."""

    def __init__(self, pool: PagePool, claims: Claims, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._claims = claims
        self._clock = clock
        self._profiles: dict[Process, ProcessProfile] = {}

    @property
    def is_on(self) -> bool:
        return bool(self._profiles)

    def open(self, process: Process) -> None:
        process.profile = self._profiles[process] = ProcessProfile(process, self._pool, self._claims, self._clock)

    def close(self, process: Process) -> None:
        self._profiles.pop(process, None)
        process.profile = None

    def composed(self) -> None:
        """A batch was put together, or there was none that could run."""
        for profile in self._profiles.values():
            profile.look()

    def stepped(self, number: int, batch: Batch, began_s: float, ended_s: float) -> None:
        """A batch has run; what came of it is not settled yet."""
        counts = [len(row.tokens) - len(row.draft_uniforms) for _, row in batch]
        num_decode = counts.count(1)
        at, took = round(began_s * 1e6), round((ended_s - began_s) * 1e6)
        step = _Step(number, at, took, sum(counts) - num_decode, num_decode, counts)
        for profile in self._profiles.values():
            profile.stepped(step, batch)
