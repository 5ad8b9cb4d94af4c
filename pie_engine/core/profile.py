"""What a core writes down of the processes that are profiled: times of their operations, and the steps meanwhile.

A process that is not profiled costs a look at `process.profile` for each operation, and nothing for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from pie_engine.kv.integrity import distinct_pages
from pie_engine.kv.pool import PagePool
from pie_engine.protocol.plan import NO_USAGE
from pie_engine.protocol.profile import ForkTimes, OperationTimes, StepTimes
from pie_engine.protocol.to_host import Profiled

if TYPE_CHECKING:
    from pie_engine.core.operation import Operation
    from pie_engine.core.scheduler import Batch
    from pie_engine.core.state import Context, Process

MAX_STEPS = 64
"""Of a message."""
COUNT_PAGES_EVERY_US = 20_000
"""Pages of a process are counted one by one."""
MAX_PAGE_WAITS = 64
"""Of an operation; the last one then goes on to the end of what is left out."""


class _Seen:
    """An operation that is under way."""

    __slots__ = ("page_waits", "times", "waits_since")

    def __init__(self, times: OperationTimes) -> None:
        self.times = times
        self.page_waits: list[tuple[int, int]] = []
        self.waits_since = 0

    def note_pages(self, lacks_pages: bool, now: int) -> None:
        if lacks_pages and not self.waits_since:
            self.waits_since = now
        elif not lacks_pages and self.waits_since:
            if len(self.page_waits) == MAX_PAGE_WAITS:
                self.page_waits[-1] = (self.page_waits[-1][0], now)
            else:
                self.page_waits.append((self.waits_since, now))
            self.waits_since = 0


class ProcessProfile:
    """Of one process; what it has to say goes out when one of its operations is over."""

    def __init__(self, process: Process, pool: PagePool, clock: Callable[[], float]) -> None:
        self._process = process
        self._pool = pool
        self._clock = clock
        self._under_way: dict[Operation, _Seen] = {}
        self._over: list[OperationTimes] = []
        self._steps: list[StepTimes] = []
        self._forks: list[ForkTimes] = []
        self._num_held = 0
        self._counted_at = 0

    # Operations.

    def queued(self, operation: Operation) -> None:
        if operation.op < 0:  # a beam, which programs do not know of
            return
        times = OperationTimes(operation.op, operation.context.ctx, operation.kind, self._now())
        self._under_way[operation] = _Seen(times)

    def begun(self, operation: Operation) -> None:
        self._change(operation, begun=self._now())

    def copied(self, operation: Operation) -> None:
        """A page was copied for it."""
        seen = self._under_way.get(operation)
        if seen is not None:
            self._change(operation, num_copies=seen.times.num_copies + 1)

    def ended(self, operation: Operation) -> None:
        seen = self._under_way.pop(operation, None)
        if seen is None:
            return
        now = self._now()
        seen.note_pages(False, now)
        usage = operation.usage if operation.has_begun else NO_USAGE
        self._over.append(
            msgspec.structs.replace(
                seen.times,
                ended=now,
                page_waits=seen.page_waits,
                prompt=usage.prompt_tokens,
                cached=usage.cached_tokens,
                completion=usage.completion_tokens,
                drafted=usage.drafted_tokens,
                accepted=usage.accepted_tokens,
            )
        )
        self.send()

    def forked(self, context: Context, child: Context) -> None:
        kv = child.kv
        self._forks.append(ForkTimes(self._now(), context.ctx, child.ctx, kv.num_tokens, kv.num_uncomputed))

    # Steps.

    def look(self, now: int) -> None:
        """Who waits for pages?"""
        for operation, seen in self._under_way.items():
            seen.note_pages(operation.lacks_pages and operation.is_runnable, now)

    def stepped(self, step: StepTimes, batch: Batch) -> None:
        """`batch` has run, and nothing of it is settled."""
        if not self._under_way:
            return
        mine = []
        for operation, row in batch:
            if operation in self._under_way:
                num_tokens = len(row.tokens) - len(row.draft_uniforms)
                mine.append((operation.op, num_tokens))
                self._ran(operation, num_tokens, step)
        if step.at - self._counted_at > COUNT_PAGES_EVERY_US:
            self._counted_at = step.at
            self._num_held = len(distinct_pages(context.kv for context in self._process.contexts.values()))
        self._steps.append(msgspec.structs.replace(step, num_held_pages=self._num_held, mine=mine))
        if len(self._steps) >= MAX_STEPS:
            self.send()

    def _ran(self, operation: Operation, num_tokens: int, step: StepTimes) -> None:
        times = self._under_way[operation].times
        changes = {"num_steps": times.num_steps + 1}
        if not times.admitted:
            changes["admitted"] = step.at
        if not times.prefilled:
            changes["num_prefill"] = times.num_prefill + num_tokens
            if num_tokens >= operation.kv.num_uncomputed:
                changes["prefilled"] = step.at + step.took
        self._change(operation, **changes)

    def send(self) -> None:
        """What there is, to the host."""
        over, self._over = self._over, []
        steps, self._steps = self._steps, []
        forks, self._forks = self._forks, []
        pool = self._pool
        self._process.host.send(Profiled(self._process.pid, pool.num_pages, pool.page_size, over, steps, forks))

    def _change(self, operation: Operation, **changes: int) -> None:
        seen = self._under_way.get(operation)
        if seen is not None:
            seen.times = msgspec.structs.replace(seen.times, **changes)

    def _now(self) -> int:
        return round(self._clock() * 1e6)


class Profiler:
    """All processes of a core that are profiled."""

    def __init__(self, pool: PagePool, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._profiles: dict[Process, ProcessProfile] = {}

    @property
    def is_on(self) -> bool:
        return bool(self._profiles)

    def open(self, process: Process) -> None:
        process.profile = self._profiles[process] = ProcessProfile(process, self._pool, self._clock)

    def close(self, process: Process) -> None:
        self._profiles.pop(process, None)
        process.profile = None

    def composed(self) -> None:
        """A batch was put together, or there was none that could run."""
        now = round(self._clock() * 1e6)
        for profile in self._profiles.values():
            profile.look(now)

    def stepped(self, number: int, batch: Batch, began_s: float, ended_s: float) -> None:
        """A batch has run; what came of it is not settled yet."""
        counts: Sequence[int] = [len(row.tokens) - len(row.draft_uniforms) for _, row in batch]
        num_decode = counts.count(1)
        step = StepTimes(
            number,
            round(began_s * 1e6),
            round((ended_s - began_s) * 1e6),
            sum(counts) - num_decode,
            num_decode,
            len(batch),
            self._pool.num_free,
            0,
        )
        for profile in self._profiles.values():
            profile.stepped(step, batch)
