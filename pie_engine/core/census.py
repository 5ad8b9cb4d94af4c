"""What a core does now, for people, the gateway and the hosts; and whether its pages add up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pie_engine.config import ModelSection, SchedulingSection
from pie_engine.core.draft_model import DraftModel
from pie_engine.core.operation import Operation
from pie_engine.core.scheduler import Scheduler
from pie_engine.core.state import Host, Process
from pie_engine.kv.integrity import distinct_pages, violations
from pie_engine.kv.pool import PagePool
from pie_engine.protocol.to_gateway import CoreStats, ProcessUsage
from pie_engine.protocol.to_host import MarketSeen, Waits

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """Of a core, since it began."""

    num_steps: int = 0
    num_prefill_tokens: int = 0
    num_decode_tokens: int = 0
    num_page_misses: int = 0
    """Pages that prompts filled and did not find."""
    num_violations: int = 0
    num_last_sequences: int = 0
    """Of the last step alone."""
    num_last_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return self.num_prefill_tokens + self.num_decode_tokens


class Census:
    """Looks at everything and changes nothing but `counts.num_violations`."""

    def __init__(
        self,
        section: ModelSection,
        scheduling: SchedulingSection,
        hosts: Mapping[str, Host],
        scheduler: Scheduler,
        pool: PagePool,
        draft_model: DraftModel | None,
        clock: Callable[[], float],
    ) -> None:
        self.counts = Counts()
        self._section, self._scheduling = section, scheduling
        self._hosts, self._scheduler, self._pool = hosts, scheduler, pool
        self._draft_model, self._clock = draft_model, clock

    def stats(self) -> CoreStats:
        """What it does now, for people and for the gateway."""
        return CoreStats(
            model=self._section.label,
            num_pages=self._pool.num_pages,
            num_free_pages=self._pool.num_free,
            num_steps=self.counts.num_steps,
            num_prefill_tokens=self.counts.num_prefill_tokens,
            num_decode_tokens=self.counts.num_decode_tokens,
            num_preemptions=self._scheduler.num_preemptions,
            processes=[self._usage_of(process) for host in self._hosts.values() for process in host.processes.values()],
            num_violations=self.counts.num_violations,
            num_cached_pages=len(self._pool.index.cached),
            num_page_hits=self._scheduler.num_page_hits,
            num_page_misses=self.counts.num_page_misses,
            num_host_pages=self._pool.tier.num_slots,
            num_used_host_pages=len(self._pool.tier),
            num_page_returns=self._scheduler.num_page_returns,
        )

    def market_seen(self, op: int, process: Process) -> MarketSeen:
        """The market as `process` sees it."""
        account, contexts, section = process.account, process.contexts.values(), self._section
        return MarketSeen(
            op=op,
            policy=self._scheduling.policy,
            price=0,
            balance=account.balance,
            endowment=account.endowment,
            rent=account.rent,
            dividends=account.dividends,
            num_made=account.num_made,
            bid=max((context.bid_now or 0 for context in contexts), default=0),
            num_pages=len(distinct_pages(context.kv for context in contexts)),
            num_free_pages=self._pool.num_free,
            num_pages_in_all=self._pool.num_pages,
            num_sequences=self.counts.num_last_sequences,
            num_tokens=self.counts.num_last_tokens,
            max_sequences=section.max_batch_sequences,
            max_tokens=section.max_batch_tokens,
            num_waiting=sum(not self._has_just_run(operation) for operation in self._scheduler.runnable),
        )

    def tell_waiting(self) -> None:
        """Tell the hosts whose programs have waited for pages for a while."""
        now = self._clock()
        for host in self._hosts.values():
            for process in host.processes.values():
                num_pages = self._num_pages_needed(process)
                if process.wait.is_news(num_pages, now):
                    host.send(Waits(process.pid, num_pages, self._pool.num_free, self._pool.num_pages))

    def check_integrity(self) -> list[str]:
        """What does not add up in the page pool; logged and counted."""
        contexts = [context.kv for context in self._scheduler.contexts.values()]
        found = violations(self._pool, contexts)
        if self._draft_model is not None:
            found += self._draft_model.violations()
        for violation in found:
            log.error("integrity: %s", violation)
        self.counts.num_violations += len(found)
        return found

    def _usage_of(self, process: Process) -> ProcessUsage:
        contexts = process.contexts.values()
        pages = distinct_pages(context.kv for context in contexts)
        num_needed, num_free = self._num_pages_needed(process), self._pool.num_free
        return ProcessUsage(
            process.pid,
            len(contexts),
            len(pages),
            process.num_generated,
            f"waiting: pages ({num_needed} needed, {num_free} free)" if num_needed else self._state_of(process),
            process.num_prompt,
            process.num_cached,
            process.num_drafted,
            process.num_accepted,
            len({key for context in contexts for key in context.kv.coming_keys() if key in self._pool.tier}),
            num_needed,
        )

    def _num_pages_needed(self, process: Process) -> int:
        """For the least of its operations that wait for pages; 0: there is none, or others of them run."""
        operations = process.operations
        if any(self._has_just_run(operation) for operation in operations):
            return 0
        needed = (self._scheduler.num_pages_needed(operation) for operation in operations)
        return min((num_pages for num_pages in needed if num_pages), default=0)

    def _has_just_run(self, operation: Operation) -> bool:
        return operation.is_runnable and operation.last_step == self.counts.num_steps

    def _state_of(self, process: Process) -> str:
        """Of what its operations do, the first in this order, when it does not wait for pages."""
        operations = process.operations
        if not operations:
            return "idle"
        if any(self._has_just_run(operation) for operation in operations):
            return "running"
        if any(operation.awaits_disk for operation in operations):
            return "waiting: disk"
        if any(not operation.is_ready for operation in operations):
            return "waiting: grammar"
        return "waiting: batch" if any(operation.is_runnable for operation in operations) else "waiting: consumer"
