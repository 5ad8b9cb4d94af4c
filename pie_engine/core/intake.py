"""What each message of a host does. Nothing runs in here; `loop` does that between two intakes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pie_engine.core.census import Census
from pie_engine.core.family import Family
from pie_engine.core.flush import FlushOperation
from pie_engine.core.forward import PassOperation
from pie_engine.core.lineage import RandomStream
from pie_engine.core.matchers import HeldMatcher, LookOperation
from pie_engine.core.operation import ModelFacts
from pie_engine.core.plan import PlanOperation
from pie_engine.core.profile import Profiler
from pie_engine.core.save import SaveOperation
from pie_engine.core.scheduler import Scheduler
from pie_engine.core.search import SearchOperation
from pie_engine.core.state import Context, Host, Process
from pie_engine.core.turns import Turns
from pie_engine.errors import Cancelled, Internal, NotFound, PieError, info_of
from pie_engine.kv.address import Sharers
from pie_engine.kv.context import KvContext
from pie_engine.kv.pool import PagePool
from pie_engine.kv.sight import view_of
from pie_engine.protocol.plan import MAX_BEAMS
from pie_engine.protocol.to_core import (
    Append,
    ChangeMatcher,
    CloseProcess,
    CoreMessage,
    CreateContext,
    CreateMatcher,
    Delivered,
    Draft,
    Drop,
    Endow,
    Flush,
    Fork,
    ForkMatcher,
    Forward,
    Generate,
    Look,
    LookAtMarket,
    OpenProcess,
    PauseProcess,
    Release,
    ReleaseMatcher,
    Restore,
    ResumeProcess,
    Save,
    Search,
    SetAway,
    SetBid,
    SetProcessBid,
    Slide,
    Steer,
    Stop,
    Truncate,
)
from pie_engine.protocol.to_host import Charged, Failed

log = logging.getLogger(__name__)


class Intake:
    """Applies messages. A message that makes no sense fails what it is about, never the core."""

    def __init__(
        self,
        facts: ModelFacts,
        pool: PagePool,
        sharers: Sharers,
        scheduler: Scheduler,
        turns: Turns,
        profiler: Profiler,
        census: Census,
        clock: Callable[[], float],
    ) -> None:
        self._facts = facts
        self._pool = pool
        self._sharers = sharers
        self._scheduler = scheduler
        self._turns = turns
        self._profiler = profiler
        self._census = census
        self._clock = clock
        self._num_arrivals = 0
        self.family = Family(self._add, self._remove, turns)
        self._handlers: dict[type[Any], Callable[[Host, Any], None]] = {
            OpenProcess: self._open_process,
            CloseProcess: self._close_process,
            Endow: self._endow,
            SetProcessBid: self._set_process_bid,
            PauseProcess: self._pause_process,
            ResumeProcess: self._resume_process,
            LookAtMarket: self._look_at_market,
            CreateContext: self._create_context,
            Append: self._append,
            Fork: self._fork,
            Truncate: self._truncate,
            Drop: self._drop,
            Slide: self._slide,
            SetBid: self._set_bid,
            SetAway: self._set_away,
            Release: self._release,
            Restore: self._restore,
            Save: self._save,
            Flush: self._flush,
            Forward: self._forward,
            CreateMatcher: self._create_matcher,
            ForkMatcher: self._fork_matcher,
            ChangeMatcher: self._change_matcher,
            ReleaseMatcher: self._release_matcher,
            Look: self._look,
            Generate: self._generate,
            Search: self._search,
            Delivered: self._delivered,
            Draft: self._draft,
            Steer: self._steer,
            Stop: self._stop,
        }

    def take(self, host: Host, message: CoreMessage) -> None:
        try:
            self._handlers[type(message)](host, message)
        except Exception as error:
            if not isinstance(error, PieError):
                log.exception("message of %s: %.200r", host.boot_id, message)
            self._answer_failed(host, message, error)

    def close_host(self, host: Host) -> None:
        for pid in list(host.processes):
            self._close_process(host, CloseProcess(pid))

    def _answer_failed(self, host: Host, message: CoreMessage, error: Exception) -> None:
        op = getattr(message, "op", None)
        operation = host.operations.get(op) if op is not None else None
        if operation is not None and operation in operation.context.queue:
            self._turns.fail(operation, info_of(error))
        elif op is not None:
            host.send(Failed(op, info_of(error)))
        elif (context := host.contexts.get(getattr(message, "ctx", -1))) is not None:
            context.fault = info_of(error)
        else:
            log.error("%s from %s: %s", type(message).__name__, host.boot_id, error)

    # Processes and contexts.

    def _open_process(self, host: Host, message: OpenProcess) -> None:
        process = host.processes.get(message.pid)
        if process is None:
            claims = self._scheduler.claims
            process = Process(
                host, message.pid, message.user, claims.ledger, priority=message.priority, bid=message.bid
            )
            claims.join(process, message.endowment, message.parent)
            host.processes[message.pid] = process
        if message.is_profiled and process.profile is None:
            self._profiler.open(process)

    def _close_process(self, host: Host, message: CloseProcess) -> None:
        process = host.processes.pop(message.pid, None)
        if process is not None and process.profile is not None:
            self._profiler.close(process)
        for context in [] if process is None else list(process.contexts.values()):
            self._turns.abandon(context)
            self._remove(context)
        if process is not None:
            account = self._scheduler.claims.leave(process)
            host.send(Charged(process.pid, account.spent, account.endowment, is_final=True))

    def _endow(self, host: Host, message: Endow) -> None:
        self._scheduler.claims.endow(_process(host, message.pid), message.amount)

    def _set_process_bid(self, host: Host, message: SetProcessBid) -> None:
        process = _process(host, message.pid)
        process.bid = message.bid
        for context in process.contexts.values():
            self._scheduler.claims.bid(context)

    def _pause_process(self, host: Host, message: PauseProcess) -> None:
        self._turns.pause(_process(host, message.pid), self._clock())

    def _resume_process(self, host: Host, message: ResumeProcess) -> None:
        self._turns.go_on(_process(host, message.pid), self._clock())

    def _look_at_market(self, host: Host, message: LookAtMarket) -> None:
        host.send(self._census.market_seen(message.op, _process(host, message.pid)))

    def _create_context(self, host: Host, message: CreateContext) -> None:
        process = _process(host, message.pid)
        kv = KvContext(self._pool, self._sharers.root_of(process.user, message.adapter_id))
        context = self._add(message.ctx, process, kv, RandomStream(message.seed))
        context.adapter_id = message.adapter_id
        self._facts.adapters.check(message.adapter_id)

    def _append(self, host: Host, message: Append) -> None:
        context = self._idle_context(host, message.ctx, "append")
        self._facts.check_tokens(message.tokens)
        context.extend(message.tokens, message.placement, self._facts)
        self._turns.forget_ended(context)

    def _fork(self, host: Host, message: Fork) -> None:
        parent = self._context(host, message.ctx)
        num_tokens = parent.kv.num_tokens
        kv = parent.kv.fork(min(message.length, num_tokens))
        self._scheduler.claims.has_pages(parent)
        child = self._add(message.child, parent.process, kv, parent.random.fork(), parent.bid)
        child.memory = parent.memory.fork(kv.num_tokens)
        child.parent = parent.ctx
        child.adapter_id = parent.adapter_id
        child.fault = parent.fault
        child.backing, child.num_backed = parent.backing, min(parent.num_backed, parent.num_kept(kv.num_tokens))
        if parent.process.profile is not None:
            parent.process.profile.forked(parent, child)
        if message.length > num_tokens:
            child.fault = Internal(f"forked at {message.length} of {num_tokens} tokens").info

    def _truncate(self, host: Host, message: Truncate) -> None:
        context = self._idle_context(host, message.ctx, "truncate")
        context.truncate(min(message.length, context.kv.num_tokens))
        self._scheduler.claims.has_pages(context)
        context.random.turn()
        self._turns.forget_ended(context)

    def _drop(self, host: Host, message: Drop) -> None:
        context = self._idle_context(host, message.ctx, "drop")
        if not 0 <= message.first < message.end <= context.kv.num_tokens:
            raise Internal(f"drop of {message.first} … {message.end - 1}, of {context.kv.num_tokens} tokens")
        self._facts.check_layouts()
        context.drop(message.first, message.end)
        self._scheduler.claims.has_pages(context)
        self._turns.forget_ended(context)

    def _slide(self, host: Host, message: Slide) -> None:
        context = self._idle_context(host, message.ctx, "window")
        self._facts.check_window(message.window, message.sinks)
        context.slide(message.window, message.sinks)
        self._scheduler.claims.has_pages(context)
        self._turns.forget_ended(context)

    def _restore(self, host: Host, message: Restore) -> None:
        context, sight = self._context(host, message.ctx), message.sight
        tokens = context.kv.tokens[:]
        if sight is not None:
            self._facts.check_sight(sight, len(tokens))
            context.kv.see(view_of(sight))
        if self._facts.archive is not None:
            context.backing = self._facts.archive.backing(
                context.process.user, message.name, tokens, context.adapter_id, sight
            )
            context.num_backed = len(tokens)

    def _set_bid(self, host: Host, message: SetBid) -> None:
        context = self._context(host, message.ctx)
        context.bid = message.bid
        self._scheduler.claims.bid(context)

    def _set_away(self, host: Host, message: SetAway) -> None:
        context = self._context(host, message.ctx)
        context.is_away = message.is_away and context.is_idle
        self._scheduler.claims.bid(context)

    def _release(self, host: Host, message: Release) -> None:
        context = host.contexts.get(message.ctx)
        if context is not None:
            self._turns.fail_all(context, Cancelled("the context was released").info)
            self._remove(context)

    def _add(self, ctx: int, process: Process, kv: KvContext, random: RandomStream, bid: int | None = None) -> Context:
        assert ctx not in process.host.contexts, f"context {ctx} exists already"
        context = Context(ctx, process, kv, random)
        context.bid = bid
        process.contexts[ctx] = process.host.contexts[ctx] = context
        self._scheduler.adopt(context)
        return context

    def _remove(self, context: Context) -> None:
        self._turns.forget_ended(context)
        context.process.contexts.pop(context.ctx)
        context.process.host.contexts.pop(context.ctx)
        self._scheduler.drop(context)

    def _context(self, host: Host, ctx: int) -> Context:
        context = host.contexts.get(ctx)
        if context is None:
            raise NotFound(f"context {ctx} does not exist")
        return context

    def _idle_context(self, host: Host, ctx: int, verb: str) -> Context:
        """Hosts refuse to change a context on which something runs; if one comes through, the host loses that."""
        context = self._context(host, ctx)
        if not context.is_idle:
            self._turns.fail_all(context, Internal(f"{verb} while an operation runs on context {ctx}").info)
        return context

    # Operations.

    def _flush(self, host: Host, message: Flush) -> None:
        context = self._context(host, message.ctx)
        self._turns.enqueue(FlushOperation(message.op, context, self._facts, self._arrive()))

    def _save(self, host: Host, message: Save) -> None:
        context = self._context(host, message.ctx)
        self._turns.enqueue(SaveOperation(message, context, self._facts, self._arrive()))

    def _forward(self, host: Host, message: Forward) -> None:
        context = self._context(host, message.ctx)
        held = _matcher(context, message.matcher) if message.matcher else None
        self._turns.enqueue(PassOperation(message, context, self._facts, self._arrive(), held))

    def _create_matcher(self, host: Host, message: CreateMatcher) -> None:
        held = HeldMatcher(self._facts.grammars.compile(message.grammar))
        self._context(host, message.ctx).matchers[message.matcher] = held

    def _fork_matcher(self, host: Host, message: ForkMatcher) -> None:
        held = _matcher(self._context(host, message.ctx), message.matcher)
        self._context(host, message.child_ctx).matchers[message.child] = held.fork()

    def _change_matcher(self, host: Host, message: ChangeMatcher) -> None:
        self._facts.check_tokens(message.tokens)
        _matcher(self._context(host, message.ctx), message.matcher).change(message.num_back, message.tokens)

    def _release_matcher(self, host: Host, message: ReleaseMatcher) -> None:
        context = host.contexts.get(message.ctx)
        if context is not None:
            context.matchers.pop(message.matcher, None)

    def _look(self, host: Host, message: Look) -> None:
        context = self._context(host, message.ctx)
        held = _matcher(context, message.matcher)
        self._turns.enqueue(LookOperation(message, context, self._facts, self._arrive(), held))

    def _generate(self, host: Host, message: Generate) -> None:
        context = self._context(host, message.ctx)
        self._turns.enqueue(
            PlanOperation(message.op, message.plan, context, self._facts, self._arrive(), self._clock())
        )

    def _search(self, host: Host, message: Search) -> None:
        context = self._context(host, message.ctx)
        first = self._num_arrivals + 1
        self._num_arrivals += max(min(message.plan.num_beams, MAX_BEAMS), 1)
        arrivals = range(first, self._num_arrivals + 1)
        operation = SearchOperation(message, context, self._facts, arrivals, self.family, self._clock())
        self._turns.enqueue(operation)

    def _arrive(self) -> int:
        self._num_arrivals += 1
        return self._num_arrivals

    def _delivered(self, host: Host, message: Delivered) -> None:
        plan = host.operations.get(message.op)
        if isinstance(plan, PlanOperation) and not plan.is_over:
            plan.deliver(message.epoch, message.num_tokens)
            if not plan.is_runnable:
                self._turns.settle(plan)

    def _draft(self, host: Host, message: Draft) -> None:
        plan = host.operations.get(message.op)
        if isinstance(plan, PlanOperation) and not plan.is_over:
            self._facts.check_tokens(message.tokens)
            plan.give_draft(message.epoch, message.index, message.tokens)

    def _steer(self, host: Host, message: Steer) -> None:
        plan = host.operations.get(message.op)
        if not isinstance(plan, PlanOperation):
            raise NotFound(f"plan {message.op} has ended, and its context has gone on")
        if plan.ending == "failed":
            plan.keep_after_end(message.keep)
            return
        if plan.ending == "finished":
            self._turns.resume(plan)
        plan.steer(message.epoch, message.keep, message.inject)
        self._turns.settle(plan)

    def _stop(self, host: Host, message: Stop) -> None:
        operation = host.operations.get(message.op)
        if operation is None:
            return
        if isinstance(operation, PlanOperation) and operation.is_over:
            operation.keep_after_end(message.keep)
            return
        operation.stop(message.keep)
        self._turns.settle(operation)


def _process(host: Host, pid: str) -> Process:
    process = host.processes.get(pid)
    if process is None:
        raise NotFound(f"process {pid} is not open")
    return process


def _matcher(context: Context, matcher: int) -> HeldMatcher:
    held = context.matchers.get(matcher)
    if held is None:
        raise NotFound(f"matcher {matcher} of context {context.ctx} does not exist")
    return held
