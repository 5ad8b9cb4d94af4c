"""The core's loop: take in what arrived, compose a batch, run it, settle it.

    receive(host, messages)  changes contexts and queues operations; never runs anything
    step()                   at most one batch through the driver, and the chunks that are due
    take_outgoing()          what the hosts get

No sockets and no waiting in here, so that the same loop runs inline in tests and benches.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from pie_engine.config import ModelSection, SchedulingSection
from pie_engine.core.adapters import Adapters, LoadedAdapter
from pie_engine.core.archive import Archive, Reading
from pie_engine.core.census import Census
from pie_engine.core.claims import policy_of
from pie_engine.core.draft_model import DraftModel
from pie_engine.core.goodput import most_passes, time_left
from pie_engine.core.host_pages import HostPages
from pie_engine.core.intake import Intake
from pie_engine.core.operation import ModelFacts, Operation
from pie_engine.core.plan import PlanOperation
from pie_engine.core.profile import Profiler
from pie_engine.core.reserve import num_pages_of, num_slots_of
from pie_engine.core.scheduler import Batch, Scheduler
from pie_engine.core.state import Context, Host
from pie_engine.core.turns import Turns
from pie_engine.driver.base import Driver, Row, RowResult
from pie_engine.errors import Lost, Unsupported, info_of
from pie_engine.grammar.compile import Compiler
from pie_engine.grammar.mask import Masks
from pie_engine.kv.address import Sharers
from pie_engine.kv.pool import PagePool
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.stats import ContextState
from pie_engine.protocol.to_core import CoreMessage
from pie_engine.protocol.to_gateway import CoreStats
from pie_engine.protocol.to_host import CoreResult
from pie_engine.store.contexts import SavedContexts

log = logging.getLogger(__name__)


DEFAULT_SCHEDULING = SchedulingSection()
STANDSTILL_STEP_S = 0.01
"""What a step takes at least in which nobody can run."""


class DeviceFailed(Exception):
    """The driver raised. Every operation has been answered, and nothing in this core can go on."""


class Core:
    """One model replica: contexts, their pages, and the operations on them. Not thread-safe."""

    def __init__(
        self,
        driver: Driver,
        tokenizer: Tokenizer,
        section: ModelSection,
        *,
        saved: SavedContexts | None = None,
        draft_model: DraftModel | None = None,
        scheduling: SchedulingSection = DEFAULT_SCHEDULING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reserves the KV memory. Raises `OutOfPages` when it is not there, `Unsupported` when the driver cannot
        do what `section` asks for. `saved`: where `save` puts contexts."""
        capabilities = driver.capabilities
        if section.deterministic and not capabilities.is_deterministic:
            raise Unsupported(
                f"`deterministic` is not for {section.label}: on the {capabilities.driver} driver its results depend "
                "on what else runs",
                hint="unset `deterministic` of the model in the configuration",
            )
        num_pages = num_pages_of(section, capabilities.page_bytes)
        driver.allocate_kv(num_pages)
        self.facts = ModelFacts(
            label=section.label,
            tokenizer=tokenizer,
            vocab_size=capabilities.vocab_size,
            max_context_tokens=capabilities.max_context_tokens,
            max_top_k=capabilities.max_top_k,
            has_layouts=capabilities.has_layouts,
            page_size=capabilities.page_size,
            num_pages=num_pages,
            grammars=Compiler(tokenizer, capabilities.vocab_size, clock=clock),
            masks=Masks(),
            adapters=Adapters(driver, section.label, section.adapter_memory_mb),
            archive=None if saved is None else Archive(saved, driver, section.label, section.saved_contexts_mb),
            has_draft_model=draft_model is not None,
        )
        self._draft_model = draft_model
        self._max_batch_tokens = section.max_batch_tokens
        self._step_s = section.step_ms / 1000
        num_slots = num_slots_of(section, capabilities.page_bytes)
        self.pool = PagePool(
            num_pages,
            capabilities.page_size,
            num_slots,
            window=capabilities.window if capabilities.has_layouts else None,
        )
        self.host_pages = HostPages(driver, num_slots)
        self._driver = driver
        self._clock = clock
        self._hosts: dict[str, Host] = {}
        sharers = Sharers(section.prefix_cache, capabilities.model_id, capabilities.page_size)
        self._scheduler = Scheduler(
            self.pool,
            policy_of(scheduling, num_pages),
            section.max_batch_tokens,
            section.max_batch_sequences,
            step_s=section.step_ms / 1000,
            pages_outlive_contexts=sharers.outlive_contexts,
        )
        latencies = self.facts.latencies
        self._census = Census(section, self._hosts, self._scheduler, self.pool, draft_model, latencies, clock)
        self.counts = self._census.counts
        self._turns = Turns(self._scheduler)
        self._profiler = Profiler(self.pool, self._scheduler.claims, clock)
        self._intake = Intake(
            self.facts, self.pool, sharers, self._scheduler, self._turns, self._profiler, self._census, clock
        )
        self._is_stuck = False
        self._last_ended_at: float | None = None
        """When the last step ended, if there was more to run then."""
        self._standing: object = None
        """When there was nothing to run the last time."""
        self._wakes_at = math.inf
        """While nobody can run: when the next step is counted for those that wait for pages."""
        for name, folder in section.adapters.items():
            self.add_adapter(name, folder)

    # Adapters.

    def add_adapter(self, name: str, folder: str | Path) -> LoadedAdapter:
        """See `Adapters.add`. Steps wait while it is loaded."""
        return self.facts.adapters.add(name, folder, self._users_of)

    def remove_adapter(self, name: str) -> None:
        """See `Adapters.remove`."""
        self.facts.adapters.remove(name, self._users_of)

    def _users_of(self, adapter_id: str) -> Mapping[str, int]:
        contexts = self._scheduler.contexts.values()
        return Counter(context.process.pid for context in contexts if context.adapter_id == adapter_id)

    @property
    def driver(self) -> Driver:
        """What runs the model, to look at."""
        return self._driver

    @property
    def kv_regions(self) -> list[tuple[int, int]]:
        """Address and bytes of the memory of this process that holds KV."""
        guessed = () if self._draft_model is None else self._draft_model.driver.kv_regions
        return [*self._driver.kv_regions, *self.host_pages.regions, *guessed]

    # Messages.

    def receive(self, host_boot: str, messages: Iterable[CoreMessage]) -> None:
        """Apply the messages of one host, in their order."""
        host = self._hosts.get(host_boot)
        if host is None:
            host = self._hosts[host_boot] = Host(host_boot)
        for message in messages:
            self._intake.take(host, message)
        self._intake.family.sweep()
        self._is_stuck = False

    def take_outgoing(self) -> dict[str, list[CoreResult]]:
        """Results since the last call, by the boot id of the host."""
        if self._profiler.is_on:
            self._profiler.tell()
        self._turns.tell_spent()
        outgoing = {host.boot_id: host.outgoing for host in self._hosts.values() if host.outgoing}
        for boot_id in outgoing:
            self._hosts[boot_id].outgoing = []
        return outgoing

    def close_host(self, host_boot: str) -> None:
        """The host is dead: free everything of it. Nothing happens the second time."""
        host = self._hosts.pop(host_boot, None)
        if host is not None:
            self._intake.close_host(host)
            self._is_stuck = False

    # Running.

    @property
    def is_idle(self) -> bool:
        """Whether nothing can run before the next message."""
        return self._is_stuck or not self._scheduler.runnable

    @property
    def next_due_at(self) -> float | None:
        """When `step` is needed even if nothing runs: a chunk waits for its time, or a plan's is over."""
        chunks = (plan.next_chunk_at for plan in self._turns.plans if plan.holds_chunk)
        deadlines = (plan.deadline for plan in self._turns.timed if plan.deadline is not None)
        wakes = (self._wakes_at,) if self._is_stuck and self._wakes_at < math.inf else ()
        return min((*chunks, *deadlines, *wakes), default=None)

    @property
    def is_compiling(self) -> bool:
        """Whether something waits for a grammar; nobody says when that is there, so `step` has to look."""
        return bool(self._turns.waiting)

    @property
    def has_disk_work(self) -> bool:
        """Whether a saved context is on its way to or from the disk; `step` has to look for it as well."""
        return self.facts.archive is not None and self.facts.archive.is_busy

    def step(self) -> None:
        """Run one batch, and send the chunks that are due. Raises `DeviceFailed`."""
        if self._turns.waiting:
            self._turns.begin_waiting()
            self._is_stuck = False
        if self._turns.timed:
            self._turns.expire(self._clock())
            self._intake.family.sweep()
        if self.facts.archive is not None and self.facts.archive.is_busy:
            self._settle_saves(self.facts.archive)
            has_news = self.facts.archive.has_news()
            self._is_stuck = self._is_stuck and not has_news
        if self._is_stuck and self._wakes_at <= self._clock():
            self._is_stuck = False
        if not self.is_idle:
            guessed_s = 0.0 if self._draft_model is None else self._guess(self._draft_model)
            batch = self._compose(guessed_s)
            if self._profiler.is_on:
                lacks = self._scheduler.has_lacked or bool(self._scheduler.paging.lacking)
                self._profiler.composed(has_lacked=lacks)
            self._prepare_pages()
            if batch:
                began_at = self._clock()
                results = self._execute([row for _, row in batch])
                ended_at = self._clock()
                self._scheduler.learn(ended_at - began_at)
                self._count_step(len(batch), began_at, ended_at)
                if self._profiler.is_on:
                    self._profiler.stepped(self.counts.num_steps, batch, began_at, ended_at)
                self._settle(batch, results)
                self._last_ended_at = None if self.is_idle else ended_at
            self._intake.family.sweep()
        self._send_due()

    def _count_step(self, num_sequences: int, began_at: float, ended_at: float) -> None:
        counts = self.counts
        counts.num_sequences += num_sequences
        counts.peak_sequences = max(counts.peak_sequences, num_sequences)
        counts.num_last_sequences, counts.last_step_s = num_sequences, ended_at - began_at
        counts.step_s += counts.last_step_s
        if self._last_ended_at is not None:
            counts.gap_s += began_at - self._last_ended_at

    def _guess(self, model: DraftModel) -> float:
        """Have the draft model write, as far as a step may have room and time for it. Returns what that took."""
        began_at = self._clock()
        model.keep(self._turns.plans)
        runnable = self._scheduler.runnable
        plans = [each for each in runnable if isinstance(each, PlanOperation) and each.asks_model]
        wanted = [(plan, count) for plan in plans if (count := plan.num_wanted) > 0]
        if wanted:
            num_spare = self._max_batch_tokens - sum(operation.kv.num_uncomputed for operation in runnable)
            share, read_s = num_spare // len(wanted), None
            if num_others := len(runnable) - len(plans):
                step_s = self._scheduler.pace.decodes_s(len(runnable))
                rates = [plan.guess_rate for plan, _ in wanted]
                pass_s, limit_s = model.pass_s(len(wanted)), self._step_s
                share = min(share, most_passes(rates, num_others, step_s=step_s, pass_s=pass_s, limit_s=limit_s))
                read_s = time_left(step_s, limit_s) if limit_s else None
            model.guess([(plan, min(count, share)) for plan, count in wanted if share > 0], read_s)
        return self._clock() - began_at

    def _compose(self, spent_s: float) -> Batch:
        scheduler = self._scheduler
        batch = scheduler.compose(self.counts.num_steps + 1, spent_s)
        if not batch and not scheduler.paging.outgrown and not scheduler.paging.restores:
            standing = scheduler.standing
            self._is_stuck, self._standing = standing == self._standing, standing
            # Steps go by also where somebody keeps pages without running: it pays for them, and a wait has its bound.
            step_s = max(self.counts.last_step_s, STANDSTILL_STEP_S)
            self._wakes_at = self._clock() + step_s if scheduler.paging.lacking else math.inf
        for operation in scheduler.paging.outgrown:
            operation.outgrow()
            self._turns.end(operation)
        return batch

    def _prepare_pages(self) -> None:
        """What has to be in the pages before the rows run."""
        scheduler = self._scheduler
        try:
            if self.pool.moves:
                self._move_pages()
            for operation, reading in scheduler.paging.restores:
                self._restore(operation.context, reading)
        except Exception as error:
            self._fail_device(error)

    def _move_pages(self) -> None:
        driver = self._driver
        for kind, pairs in self.pool.moves.take():
            sources, destinations = [source for source, _ in pairs], [destination for _, destination in pairs]
            if kind == "copy":
                driver.copy_pages(pairs)
            elif kind == "out":
                self.host_pages.write(destinations, driver.read_pages(sources))
            else:
                driver.write_pages(destinations, self.host_pages.read(sources))

    def _restore(self, context: Context, reading: Reading) -> None:
        assert self.facts.archive is not None
        assert context.backing is not None
        self.facts.archive.restore(context.kv, reading)
        context.has_found(context.kv.num_full_at(reading.end + 1))
        context.backing.drop()

    def _settle_saves(self, archive: Archive) -> None:
        for operation, error in archive.take_saved():
            # It may have been called off meanwhile, or its process may have ended.
            if operation.is_behind:
                operation.finish(error)
            elif not operation.is_over and operation in operation.context.queue:
                operation.finish(error)
                self._turns.settle(operation)

    def _execute(self, rows: list[Row]) -> list[RowResult]:
        try:
            self.facts.masks.start()
            results = self._driver.execute(rows)
            assert len(results) == len(rows), f"{len(results)} results for {len(rows)} rows"
        except Exception as error:
            self._fail_device(error)
        finally:
            self.facts.masks.finish()
        self.counts.num_steps += 1
        return results

    def _settle(self, batch: Batch, results: list[RowResult]) -> None:
        now, counts, made = self._clock(), self.counts, self._scheduler.claims.made
        num_all = num_decode = num_drafts = 0
        for (operation, row), result in zip(batch, results, strict=True):
            kv, num_in_row = operation.kv, len(row.tokens)
            num_tokens = num_in_row - len(row.draft_uniforms)
            operation.num_run += num_tokens
            operation.context.process.num_batch_tokens += num_in_row
            num_all += num_tokens
            num_drafts += num_in_row - num_tokens
            num_decode += num_tokens == 1
            if result.error is not None:
                kv.uncompute(kv.num_computed)
                operation.refuse(result.error)
                self._turns.settle(operation)
                continue
            num_full = kv.advance(kv.num_computed + num_tokens)
            if num_full:
                num_new = operation.context.has_seen()
                if num_tokens > 1:
                    counts.num_page_misses += min(num_new, num_full)
            if kv.num_tokens == kv.num_computed:
                self._settle_sample(operation, result, now)
            if num_full or operation.guesses:
                made(operation.context)
        counts.num_draft_tokens += num_drafts
        counts.num_decode_tokens += num_decode
        counts.num_prefill_tokens += num_all - num_decode
        counts.num_last_tokens = num_all

    def _settle_sample(self, operation: Operation, result: RowResult, now: float) -> None:
        kv = operation.kv
        try:
            if result.mirostat_mu is not None:
                operation.settle_draw(result.mirostat_mu)
            operation.settle(result, now)
        except Exception as error:
            log.exception("result of operation %d of %s", operation.op, operation.context.process.pid)
            operation.fail(info_of(error))
        # A reply has one token more; of anything else the scheduler has to hear.
        if operation.is_over or operation.is_parked or kv.num_tokens - kv.num_computed != 1:
            self._turns.settle(operation)

    def _send_due(self) -> None:
        now = self._clock()
        for plan in self._turns.plans:
            if plan.next_chunk_at <= now:
                plan.send_chunk(now)

    def _fail_device(self, error: Exception) -> NoReturn:
        log.exception("step %d", self.counts.num_steps + 1)
        self._fail_everything(error)
        raise DeviceFailed(f"{type(error).__name__}: {error}") from error

    def _fail_everything(self, error: Exception) -> None:
        lost = Lost.of(
            "core_lost",
            f"the device of model {self.facts.label} failed: {type(error).__name__}: {error}",
            hint="the model is loaded again; try again in a moment",
        )
        for context in list(self._scheduler.contexts.values()):
            self._turns.fail_all(context, lost.info)

    # Looking.

    @property
    def num_steps(self) -> int:
        """Batches that have run."""
        return self.counts.num_steps

    def stats(self, *, with_processes: bool = True) -> CoreStats:
        """See `Census.stats`."""
        return self._census.stats(with_processes=with_processes)

    def contexts_of(self, pid: str) -> list[ContextState]:
        """See `Census.contexts_of`."""
        return self._census.contexts_of(pid)

    def tell_waiting(self) -> None:
        """See `Census.tell_waiting`."""
        self._census.tell_waiting()

    def check_integrity(self) -> list[str]:
        """See `Census.check_integrity`."""
        return self._census.check_integrity()
