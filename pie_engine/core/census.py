"""What a core does now, for people, the gateway and the hosts; and whether its pages and credits add up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice

from pie_engine.config import ModelSection
from pie_engine.core.draft_model import DraftModel
from pie_engine.core.latencies import Latencies
from pie_engine.core.operation import Operation
from pie_engine.core.scheduler import Scheduler
from pie_engine.core.state import Context, Host, Process
from pie_engine.kv.context import KvContext
from pie_engine.kv.integrity import count_each, count_pages, violations
from pie_engine.kv.pool import PagePool
from pie_engine.protocol.credits import shown
from pie_engine.protocol.stats import Batches, ContextState
from pie_engine.protocol.to_gateway import CoreStats, ProcessUsage
from pie_engine.protocol.to_host import MarketSeen, Waits

log = logging.getLogger(__name__)

NUM_NAMED = 2
"""Of those that hold the pages, when somebody waits for some."""


@dataclass(slots=True)
class Counts:
    """Of a core, since it began."""

    num_steps: int = 0
    num_prefill_tokens: int = 0
    num_decode_tokens: int = 0
    num_draft_tokens: int = 0
    num_sequences: int = 0
    peak_sequences: int = 0
    """Since the last report."""
    step_s: float = 0.0
    gap_s: float = 0.0
    num_page_misses: int = 0
    """Pages that prompts filled and did not find; those of contexts that had them before are not counted."""
    num_violations: int = 0
    num_last_sequences: int = 0
    """Of the last step alone."""
    num_last_tokens: int = 0
    last_step_s: float = 0.0

    @property
    def num_tokens(self) -> int:
        return self.num_prefill_tokens + self.num_decode_tokens


class Census:
    """Looks at everything and changes nothing but `counts`."""

    def __init__(
        self,
        section: ModelSection,
        hosts: Mapping[str, Host],
        scheduler: Scheduler,
        pool: PagePool,
        draft_model: DraftModel | None,
        latencies: Latencies,
        clock: Callable[[], float],
    ) -> None:
        self.counts = Counts()
        self._held: dict[Process, tuple[int, int]] = {}
        """Pages that each process had when they were last counted, and those of them that others have as well."""
        self._largest: list[Process] = []
        """Those of them that have most, the largest first."""
        self._section = section
        self._hosts, self._scheduler, self._pool = hosts, scheduler, pool
        self._draft_model, self._latencies, self._clock = draft_model, latencies, clock

    def stats(self, *, with_processes: bool = True) -> CoreStats:
        """What it does now, for people and for the gateway. Begins a new peak."""
        usages = None
        if with_processes:
            processes = [process for host in self._hosts.values() for process in host.processes.values()]
            kvs = [[context.kv for context in process.contexts.values()] for process in processes]
            self._held = dict(zip(processes, count_each(self._pool, kvs), strict=True))
            self._largest = nlargest(NUM_NAMED + 1, self._held, key=lambda process: self._held[process][0])
            bids = self._scheduler.claims.bids()
            usages = [self._usage_of(process, bids) for process in processes]
        return CoreStats(
            model=self._section.label,
            num_pages=self._pool.num_pages,
            num_free_pages=self._pool.num_free,
            num_preemptions=self._scheduler.paging.num_preemptions,
            batches=self._take_batches(),
            processes=usages,
            num_violations=self.counts.num_violations,
            num_cached_pages=len(self._pool.index.cached),
            num_page_hits=self._scheduler.paging.num_page_hits,
            num_page_misses=self.counts.num_page_misses,
            num_host_pages=self._pool.tier.num_slots,
            num_used_host_pages=len(self._pool.tier),
            num_page_returns=self._scheduler.paging.num_page_returns,
            market=self._scheduler.claims.state(),
            ttft_s=self._latencies.ttft.histogram,
            tpot_s=self._latencies.tpot.histogram,
        )

    def contexts_of(self, pid: str) -> list[ContextState]:
        """Those of a process, forks behind what they were forked from; none of one that is not here."""
        found = (host.processes[pid] for host in self._hosts.values() if pid in host.processes)
        return [self._context_state(context) for process in found for context in process.contexts.values()]

    def _take_batches(self) -> Batches:
        counts, section = self.counts, self._section
        peak_sequences, counts.peak_sequences = counts.peak_sequences, 0
        return Batches(
            num_steps=counts.num_steps,
            num_prefill_tokens=counts.num_prefill_tokens,
            num_decode_tokens=counts.num_decode_tokens,
            num_draft_tokens=counts.num_draft_tokens,
            num_sequences=counts.num_sequences,
            peak_sequences=peak_sequences,
            step_s=counts.step_s,
            gap_s=counts.gap_s,
            max_tokens=section.max_batch_tokens,
            max_sequences=section.max_batch_sequences,
        )

    def market_seen(self, op: int, process: Process) -> MarketSeen:
        """The market as `process` sees it."""
        account, contexts, section = process.account, process.contexts.values(), self._section
        claims = self._scheduler.claims
        return MarketSeen(
            op=op,
            policy=claims.policy.name,
            price=claims.policy.price,
            balance=account.balance,
            endowment=account.endowment,
            rent=account.rent,
            dividends=account.dividends,
            num_made=account.num_made,
            bid=claims.highest_bid(contexts),
            num_pages=count_pages(self._pool, [context.kv for context in contexts])[0],
            num_free_pages=self._pool.num_free,
            num_pages_in_all=self._pool.num_pages,
            num_sequences=self.counts.num_last_sequences,
            num_tokens=self.counts.num_last_tokens,
            max_sequences=section.max_batch_sequences,
            max_tokens=section.max_batch_tokens,
            step_s=self.counts.last_step_s,
            num_moved_out=process.num_moved_out,
            num_waiting=sum(not self._has_just_run(operation) for operation in self._scheduler.runnable),
        )

    def tell_waiting(self) -> None:
        """Tell the hosts whose programs have waited for pages for a while."""
        now = self._clock()
        for host in self._hosts.values():
            for process in host.processes.values():
                num_pages = self._num_pages_needed(process.operations)
                if process.wait.is_news(num_pages, now):
                    host.send(Waits(process.pid, num_pages, self._pool.num_free, self._pool.num_pages))

    def check_integrity(self) -> list[str]:
        """What does not add up, pages or credits; logged and counted."""
        contexts = [context.kv for context in self._scheduler.contexts.values()]
        found = violations(self._pool, contexts) + self._scheduler.claims.violations()
        if self._draft_model is not None:
            found += self._draft_model.violations()
        for violation in found:
            log.error("integrity: %s", violation)
        self.counts.num_violations += len(found)
        return found

    def _usage_of(self, process: Process, bids: Sequence[int]) -> ProcessUsage:
        """`bids`: of all contexts, by row. Fields by their place: hundreds of these are made at once."""
        contexts, operations, account = process.contexts.values(), process.operations, process.account
        num_pages, num_shared = self._held[process]
        bid = max([bids[context.row] for context in contexts], default=0)
        state, num_needed = self._state_of(process, operations, bid)
        return ProcessUsage(
            process.pid,
            len(contexts),
            num_pages,
            process.num_generated,
            state,
            process.num_prompt,
            process.num_cached,
            process.num_drafted,
            process.num_accepted,
            self._num_in_host_memory([context.kv for context in contexts]) if len(self._pool.tier) else 0,
            num_needed,
            num_shared,
            process.num_batch_tokens,
            bid,
            account.balance,
            account.endowment,
            account.rent,
            account.dividends,
            account.num_made,
            process.num_moved_out,
        )

    def _num_in_host_memory(self, kvs: Iterable[KvContext]) -> int:
        tier = self._pool.tier
        return len({key for kv in kvs for key in kv.coming_keys() if key in tier}) if len(tier) else 0

    def _context_state(self, context: Context) -> ContextState:
        num_pages, num_shared = count_pages(self._pool, [context.kv])
        operations = list(islice(context.queue, 1))
        bid = self._scheduler.claims.highest_bid(context.process.contexts.values())
        state, _ = self._state_of(context.process, operations, bid)
        return ContextState(
            ctx=context.ctx,
            parent=context.parent if context.parent in context.process.contexts else None,
            model=self._section.label,
            state=state,
            num_tokens=context.kv.num_tokens,
            num_pages=num_pages,
            num_shared_pages=num_shared,
            num_host_pages=self._num_in_host_memory([context.kv]),
            bid=self._scheduler.claims.bid_of(context),
        )

    def _num_pages_needed(self, operations: Sequence[Operation]) -> int:
        """For the least of those that wait for pages; 0: there is none, or others of them run."""
        if self._have_just_run(operations):
            return 0
        needed = (self._scheduler.paging.num_needed(operation) for operation in operations)
        return min((num_pages for num_pages in needed if num_pages), default=0)

    def _has_just_run(self, operation: Operation) -> bool:
        return operation.is_runnable and operation.last_step == self.counts.num_steps

    def _have_just_run(self, operations: Iterable[Operation]) -> bool:
        """Any of them. Asked of every process, again and again."""
        num_steps = self.counts.num_steps
        return any(each.is_runnable for each in operations if each.last_step == num_steps)

    def _state_of(self, process: Process, operations: Sequence[Operation], bid: int) -> tuple[str, int]:
        """Of what they do, the first in this order; and the pages that they wait for."""
        if process.paused_at is not None:
            return "paused", 0
        if not operations:
            return "idle", 0
        if self._have_just_run(operations):
            return "running", 0
        num_needed = self._num_pages_needed(operations)
        if num_needed:
            debt = ", no credits" if self._is_broke(process) else ""
            # Enough are free: it is not its turn, or they are what contexts that run grow into.
            left = " but left for others" if self._pool.num_free >= num_needed else ""
            free = f"{self._pool.num_free} free{left}{self._others_have(process)}{debt}"
            return f"waiting: pages ({num_needed} needed, {free})", num_needed
        return f"waiting: {self._wait_of(process, operations, bid)}", 0

    def _wait_of(self, process: Process, operations: Sequence[Operation], bid: int) -> str:
        """For what else than pages, the first in this order."""
        if any(operation.awaits_disk for operation in operations):
            return "disk"
        if any(not operation.is_ready for operation in operations):
            return "grammar"
        if not any(operation.is_runnable for operation in operations):
            return "consumer"
        price = self._scheduler.claims.policy.price
        if not price:
            return "batch"
        what = "credits" if self._is_broke(process) else "batch"
        return f"{what} (bids {shown(bid)}, the price is {shown(price)})"

    def _is_broke(self, process: Process) -> bool:
        """It can bid nothing, so that whoever bids anything goes first."""
        return self._scheduler.claims.policy.name == "market" and process.account.balance <= 0

    def _others_have(self, process: Process) -> str:
        """The two that hold most of the pages, besides `process`."""
        others = [each for each in self._largest if each is not process and self._held[each][0]]
        return "".join(f", {each.pid} has {self._held[each][0]}" for each in others[:NUM_NAMED])
