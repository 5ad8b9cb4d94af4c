"""What a core writes down of the processes that are profiled: times of their operations, and the steps meanwhile.

A process that is not profiled costs a look at `process.profile` for each operation, and nothing for each step.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

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

Clock = Callable[[], float]
"""Seconds."""
MAX_STEPS = 64
"""Of a message."""
COUNT_PAGES_EVERY_US = 50_000
"""Pages of a process are counted one by one: so often at least, and as soon as others are free than before, as long as
counting takes no more than `1 / COUNT_PAGES_REST` of the time."""
COUNT_PAGES_REST = 500
MAX_PAGE_WAITS = 64
"""Of an operation; the last one then goes on to the end of what is left out."""


class Seen:
    """An operation that is under way."""

    __slots__ = ("_waits_since", "profile", "times")

    def __init__(self, profile: ProcessProfile, times: OperationTimes) -> None:
        self.profile = profile
        self.times = times
        self._waits_since = 0
        """For pages; 0: it does not."""

    def note_pages(self, lacks_pages: bool, now: int) -> None:
        waits = self.times.page_waits
        if lacks_pages and not self._waits_since:
            self._waits_since = now
        elif not lacks_pages and self._waits_since:
            if len(waits) == MAX_PAGE_WAITS:
                waits[-1] = (waits[-1][0], now)
            else:
                waits.append((self._waits_since, now))
            self._waits_since = 0

    def end(self, operation: Operation, now: int) -> OperationTimes:
        """All of it."""
        times = self.times
        times.ended = now
        if self._waits_since:
            self.note_pages(False, now)
        usage = operation.usage if operation.has_begun else NO_USAGE
        if usage is not NO_USAGE:
            times.prompt, times.cached, times.completion = (
                usage.prompt_tokens,
                usage.cached_tokens,
                usage.completion_tokens,
            )
            times.drafted, times.accepted = usage.drafted_tokens, usage.accepted_tokens
        return times


class ProcessProfile:
    """Of one process; what it has to say goes out at the end of a turn in which one of its operations is over."""

    def __init__(self, process: Process, pool: PagePool, clock: Clock) -> None:
        self.num_under_way = 0
        self.ran: list[tuple[int, int]] = []
        """Its operations in the step that is being looked at, and how many tokens of each."""
        self._process = process
        self._pool = pool
        self._clock = clock
        self._over: list[OperationTimes] = []
        self._steps: list[StepTimes] = []
        self._forks: list[ForkTimes] = []
        self._num_held = 0
        self._counted_at = self._num_free = self._rest = 0
        """When pages were counted last, how many were free then, and for how long that is not done again."""

    # Operations.

    def queued(self, operation: Operation) -> None:
        if operation.op >= 0:  # programs do not know of beams
            now = round(self._clock() * 1e6)
            context = operation.context
            # Its turn has come if nothing is before it.
            begun = now if context.queue[0] is operation else 0
            operation.seen = Seen(self, OperationTimes(operation.op, context.ctx, operation.kind, now, begun))
            self.num_under_way += 1

    def waits_for_grammar(self, operation: Operation) -> None:
        """From now on until it has begun."""
        if (seen := operation.seen) is not None:
            times = seen.times
            times.compiling, times.begun = times.compiling or round(self._clock() * 1e6), 0

    def begun(self, operation: Operation) -> None:
        if (seen := operation.seen) is not None and not seen.times.begun:
            seen.times.begun = round(self._clock() * 1e6)

    def copied(self, operation: Operation) -> None:
        """A page was copied for it."""
        if (seen := operation.seen) is not None:
            seen.times.num_copies += 1

    def ended(self, operation: Operation) -> None:
        if (seen := operation.seen) is not None:
            operation.seen = None
            self.num_under_way -= 1
            self._over.append(seen.end(operation, round(self._clock() * 1e6)))

    def forked(self, context: Context, child: Context) -> None:
        kv, now = child.kv, round(self._clock() * 1e6)
        self._forks.append(ForkTimes(now, context.ctx, child.ctx, kv.num_tokens, kv.num_uncomputed))

    # Steps.

    def stepped(self, number: int, at: int, took: int, num_prefill: int, num_decode: int, num_rows: int) -> None:
        """See `StepTimes`. `ran` says what of it is this process's."""
        num_free, ran, self.ran = self._pool.num_free, self.ran, []
        since = at - self._counted_at
        if since > COUNT_PAGES_EVERY_US or (num_free != self._num_free and since > self._rest):
            self._count_pages(at, num_free)
        steps = self._steps
        steps.append(StepTimes(number, at, took, num_prefill, num_decode, num_rows, num_free, self._num_held, ran))
        if len(steps) >= MAX_STEPS:
            self.send()

    @property
    def has_news(self) -> bool:
        """Whether the host should not wait for it."""
        return bool(self._over)

    def _count_pages(self, at: int, num_free: int) -> None:
        began = self._clock()
        self._counted_at, self._num_free = at, num_free
        self._num_held = len(distinct_pages(context.kv for context in self._process.contexts.values()))
        self._rest = round((self._clock() - began) * 1e6) * COUNT_PAGES_REST

    def send(self) -> None:
        """What there is, to the host."""
        pool, process = self._pool, self._process
        lists = self._over, self._steps, self._forks
        self._over, self._steps, self._forks = [], [], []
        process.host.send(Profiled(process.pid, pool.num_pages, pool.page_size, *lists))


class Profiler:
    """All processes of a core that are profiled."""

    def __init__(self, pool: PagePool, claims: Claims, clock: Clock) -> None:
        self._pool = pool
        self._claims = claims
        self._clock = clock
        self._profiles: dict[Process, ProcessProfile] = {}
        self._lack_pages = False
        """Some of these, when they were looked at last."""

    @property
    def is_on(self) -> bool:
        return bool(self._profiles)

    def open(self, process: Process) -> None:
        process.profile = self._profiles[process] = ProcessProfile(process, self._pool, self._clock)

    def close(self, process: Process) -> None:
        """Nothing of it is under way any more, or will be."""
        self._profiles.pop(process, None)
        process.profile = None

    def tell(self) -> None:
        """The hosts hear of operations that are over."""
        for profile in self._profiles.values():
            if profile.has_news:
                profile.send()

    def composed(self, *, has_lacked: bool) -> None:
        """A batch was put together, or there was none that could run; `has_lacked`: it did not hold everybody."""
        if not has_lacked and not self._lack_pages:
            return
        self._lack_pages, now = False, round(self._clock() * 1e6)
        for process in self._profiles:
            for operation in chain.from_iterable(context.queue for context in process.contexts.values()):
                if operation.seen is not None:
                    lacks_pages = operation.is_runnable and self._claims.lacks_pages(operation.context)
                    self._lack_pages = self._lack_pages or lacks_pages
                    operation.seen.note_pages(lacks_pages, now)

    def stepped(self, number: int, batch: Batch, began_s: float, ended_s: float) -> None:
        """A batch has run; what came of it is not settled yet."""
        at, ended = round(began_s * 1e6), round(ended_s * 1e6)
        num_prefill = num_decode = 0
        for operation, row in batch:
            num_tokens = len(row.tokens) - len(row.draft_uniforms)
            if num_tokens == 1:
                num_decode += 1
            else:
                num_prefill += num_tokens
            if (seen := operation.seen) is not None:
                seen.profile.ran.append((operation.op, num_tokens))
                times = seen.times
                times.num_steps += 1
                if not times.prefilled:
                    times.admitted = times.admitted or at
                    times.num_prefill += num_tokens
                    if num_tokens >= operation.kv.num_uncomputed:
                        times.prefilled = ended
        for profile in self._profiles.values():
            if profile.num_under_way:
                profile.stepped(number, at, ended - at, num_prefill, num_decode, len(batch))
