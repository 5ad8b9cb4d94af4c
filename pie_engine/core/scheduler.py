"""Which operations run in a step, and who gives pages up for them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice, takewhile
from operator import attrgetter

from pie_engine.core.archive import Backing, Reading
from pie_engine.core.drafting import num_draftable
from pie_engine.core.fairness import FairQueue
from pie_engine.core.operation import Operation
from pie_engine.core.pace import Pace, Part
from pie_engine.core.policy import Holder, Standing, is_worth_waiting, num_pages_wanted, share_step, victims
from pie_engine.core.state import Context
from pie_engine.driver.base import Row
from pie_engine.kv.context import KvContext
from pie_engine.kv.layout import Range
from pie_engine.kv.pool import PagePool

Batch = list[tuple[Operation, Row]]
_arrival = attrgetter("arrival")
TURN_STEPS = 4
"""A prompt keeps its turn for so many full steps, where others wait for theirs."""


class Scheduler:
    """Composes batches from the runnable operations, and keeps the page pool from running dry.

    Where not all of them fit, steps are shared between processes, however many operations each of them has.
    """

    def __init__(
        self,
        pool: PagePool,
        max_batch_tokens: int,
        max_batch_sequences: int,
        *,
        step_s: float = 0.0,
        pages_outlive_contexts: bool = True,
    ) -> None:
        self._pool = pool
        self._pages_outlive_contexts = pages_outlive_contexts
        self._max_tokens = max_batch_tokens
        self._max_sequences = max_batch_sequences
        self.pace = Pace(step_s)
        self._num_decodes = 0
        """Of the last step."""
        self._parts: list[Part] = []
        """Of prompts, in the last step."""
        self.runnable: list[Operation] = []
        """Begun, not over and not parked; oldest first."""
        self.contexts: dict[int, Context] = {}
        """All contexts there are, by the identity of the object: ids are only unique within a host."""
        self.outgrown: list[Operation] = []
        """Operations of the last `compose` that need more pages than there are."""
        self.restores: list[tuple[Operation, Reading]] = []
        """Operations of the last `compose` whose KV was read from a saved context; their pages are reserved."""
        self.num_preemptions = self.num_page_hits = self.num_page_returns = 0
        self._coming: set[bytes] = set()
        """Keys of the pages that the prefills chosen so far make full in this step."""
        self._decodes = FairQueue(1)
        self._prompts = FairQueue(TURN_STEPS * max_batch_tokens)
        self._let_in: set[Context] = set()
        """Contexts that have been given pages for this step."""
        self._lost_pages = False
        """Whether somebody has, for this step."""
        self._step = 0

    @property
    def standing(self) -> object:
        """Equal to what it was as long as nobody has got further, nor lost or gained a page."""
        return self._pool.num_free, [(each.arrival, each.kv.num_computed, each.kv.num_pages) for each in self.runnable]

    def add(self, operation: Operation) -> None:
        """It can run. That of a paused process is added again when it goes on."""
        if not operation.is_runnable and operation.context.process.paused_at is None:
            operation.is_runnable = True
            insort(self.runnable, operation, key=_arrival)

    def remove(self, operation: Operation) -> None:
        if operation.is_runnable:
            operation.is_runnable = False
            self.runnable.remove(operation)

    def adopt(self, context: Context) -> None:
        self.contexts[id(context)] = context
        self.rest(context)

    def rest(self, context: Context) -> None:
        """Nothing runs on the context any more."""
        context.last_used = self._step

    def drop(self, context: Context) -> None:
        """The context is gone; its operations must be over."""
        if not self._pages_outlive_contexts:
            context.kv.uncompute(0)
            self._pool.forget(context.kv.coming_keys())
        context.kv.release()
        del self.contexts[id(context)]

    def compose(self, step: int, spent_s: float = 0.0) -> Batch:
        """The rows of step `step`. Their pages are reserved; the moves of the pool have to be done first.

        `spent_s` have gone by since the last one.
        """
        self._step = step
        self.outgrown, self.restores = [], []
        operations, needs = self._with_pages()
        shares = self._share(operations, needs, self._chunk_of(operations, needs, spent_s))
        batch = Batch()
        self._num_decodes, self._parts = 0, []
        num_spare = self._max_tokens - sum(shares)
        for operation, num_tokens in zip(operations, shares, strict=True):
            if num_tokens:
                operation.last_step = step
                if num_tokens == 1:
                    self._num_decodes += 1
                else:
                    self._parts.append(Part(operation.kv.num_computed, num_tokens))
                if operation.guesses and num_tokens == operation.kv.num_uncomputed and operation.is_writing:
                    num_spare -= self._draft(operation, num_spare)
                row = operation.row(num_tokens)
                if not operation.kv.is_plain:
                    row.page_ids, row.start, row.layout = operation.kv.laid_out(row.start, row.end)
                batch.append((operation, row))
        return batch

    def _share(
        self, operations: Sequence[Operation], needs: Sequence[int], chunk: Callable[[int, int], int] | None
    ) -> Sequence[int]:
        """Tokens of each of `operations` in this step."""
        is_short = False

        def in_turn(indices: Sequence[int]) -> Sequence[int]:
            nonlocal is_short
            is_short = True
            decodes = [operations[index] for index in indices]
            order = self._decodes.order(decodes, [each.context.process for each in decodes], [1] * len(decodes))
            return [indices[place] for place in order]

        shares = share_step(needs, self._max_tokens, self._max_sequences, in_turn, chunk)
        if not is_short:
            self._decodes.clear()
        if self._decodes.is_busy or self._prompts.is_busy:
            for operation, need, num_tokens in zip(operations, needs, shares, strict=True):
                if num_tokens:
                    (self._decodes if need == 1 else self._prompts).serve(operation, num_tokens)
        return shares

    def learn(self, took_s: float) -> None:
        """How long the step that was composed last has taken."""
        self.pace.learn(self._num_decodes, self._parts, took_s)

    def _chunk_of(
        self, operations: Sequence[Operation], needs: Sequence[int], spent_s: float
    ) -> Callable[[int, int], int] | None:
        """How much of each prompt runs where others decode, or did just now: a program that runs pass after pass has
        not asked for its next one yet. None: as much as there is room for."""
        num_decodes = needs.count(1)
        if self.pace.is_free or len(needs) == num_decodes or not (num_decodes or self._num_decodes):
            return None
        # One row is for a prompt.
        allowance = self.pace.allowance(min(num_decodes, self._max_tokens - 1, self._max_sequences - 1), spent_s)
        if allowance is None:
            return lambda index, most: 0
        return lambda index, most: allowance.take(operations[index].kv.num_computed, most)

    def _draft(self, operation: Operation, num_spare: int) -> int:
        """Let a plan guess ahead with tokens that nobody else needs in this step, and pages that nobody holds."""
        kv = operation.kv
        if num_spare <= 0:
            return 0
        num_drafts = operation.draft(min(num_spare, num_draftable(kv, self._pool, len(self.runnable))))
        end = kv.num_tokens + num_drafts
        if end > kv.writable_end:
            copy = kv.reserve(end)
            assert copy is None, "the page that is written is its own"
        return num_drafts

    def _with_pages(self) -> tuple[list[Operation], list[int]]:
        """The operations that could run now, with pages for all tokens of their contexts. And how many tokens each of
        them has to run."""
        ready: list[Operation] = []
        others: list[Operation] = []
        for operation in self.runnable:
            kv = operation.kv
            num_tokens = kv.num_tokens
            if num_tokens - kv.num_computed == 1 and num_tokens <= kv.writable_end:
                # A decode with room in its page: nothing to look up, nothing to reserve.
                operation.awaits_disk = False
                ready.append(operation)
            else:
                others.append(operation)
        if not others:
            self._prompts.clear()
            return ready, [1] * len(ready)
        put_back = (each for each in ready if not each.kv.writable_end)
        found, needs = self._give_pages(chain(self._in_line(others, len(ready)), put_back))
        if self._lost_pages:
            kept = (each for each in ready if each.kv.writable_end >= each.kv.num_tokens)
            ready = [each for each in kept if each.context not in self._let_in]
        return ready + found, [1] * len(ready) + needs

    def _in_line(self, others: list[Operation], num_ready: int) -> list[Operation]:
        """The order in which they get pages: oldest first, or where prompts have to wait though there are pages, the
        processes in turn."""
        prompts = [operation for operation in others if operation.kv.num_uncomputed > 1]
        if len(prompts) > 1:
            sizes = [operation.kv.num_uncomputed for operation in prompts]
            owners = [operation.context.process for operation in prompts]
            if self._are_short(sum(sizes), num_ready) and any(owner is not owners[0] for owner in owners):
                order = self._prompts.order(prompts, owners, sizes)
                growing = [operation for operation in others if operation.kv.num_uncomputed == 1]
                in_turn = growing + [prompts[index] for index in order]
                return in_turn if self._have_room(in_turn) else others
        self._prompts.clear()
        return others

    def _are_short(self, num_tokens: int, num_decodes: int) -> bool:
        """Whether a step may not hold prompts of so many tokens beside its decodes."""
        is_paced = bool(num_decodes) and not self.pace.is_free
        return is_paced or num_tokens + num_decodes > self._max_tokens or len(self.runnable) > self._max_sequences

    def _have_room(self, operations: Iterable[Operation]) -> bool:
        """Whether nobody has to give pages up for those that a step has tokens for, nor for anybody's next page."""
        tokens_left, num_free = self._max_tokens, self._pool.num_free - len(self.runnable)
        for operation in operations:
            kv = operation.kv
            num_free -= kv.num_new_pages(self._end_for_now(kv))
            tokens_left -= kv.num_uncomputed
            if num_free < 0 or tokens_left <= 0:
                break
        return num_free >= 0

    def _give_pages(self, operations: Iterable[Operation]) -> tuple[list[Operation], list[int]]:
        """Those that get pages for all tokens of their contexts, and how many tokens each of them has to run.

        Whoever was let in keeps its pages in this step.
        """
        found: list[Operation] = []
        needs: list[int] = []
        tokens_left, is_blocked = self._max_tokens, False
        self._coming.clear()
        self._let_in.clear()
        self._lost_pages = False
        for operation in operations:
            kv = operation.kv
            is_prefill = kv.num_uncomputed > 1
            if is_prefill and tokens_left <= 0:
                continue
            # Contexts without pages are let in one after the other: a small one must not overtake a large one for ever.
            is_newcomer = not kv.num_computed and not kv.num_pages
            if is_newcomer and is_blocked:
                operation.lacks_pages = True
                continue
            reading: Reading | None = None
            operation.awaits_disk = False
            if is_prefill:
                if not self._look_up(operation, tokens_left):
                    operation.lacks_pages = False
                    continue
                reading = self._fetch(operation)
                if operation.awaits_disk:
                    continue
            end, gaps = self._goal(kv, reading)
            if gaps or end > kv.writable_end:
                operation.lacks_pages = not self._reserve(operation, is_newcomer, end, gaps)
                if operation.lacks_pages:
                    is_blocked = is_blocked or is_newcomer
                    continue
            self._let_in.add(operation.context)
            if reading is not None:
                self.restores.append((operation, reading._replace(end=min(reading.end, kv.writable_end))))
                continue
            if is_prefill:
                self._take_back(kv)
                if not kv.num_writable:
                    # All that it has pages for came back; a bounded context goes on from there.
                    continue
                self._announce(operation, tokens_left)
                tokens_left -= kv.num_uncomputed
            found.append(operation)
            needs.append(min(kv.num_uncomputed, kv.num_writable))
        return found, needs

    def _look_up(self, operation: Operation, tokens_left: int) -> bool:
        """Take over what is published of the operation's tokens. False when it had better wait for the next step.

        It waits for pages that an operation before it makes full in this step, and finds them published then.
        """
        kv, tier, size = operation.kv, self._pool.tier, self._pool.page_size
        keys = list(kv.coming_keys())
        pages = self._pool.index.run(keys)
        num_known = len(pages) + len(tier.run(keys[len(pages) :]))
        tier.want(keys[len(pages) : num_known])
        num_coming = sum(1 for _ in takewhile(self._coming.__contains__, keys[num_known:]))
        num_left = kv.num_tokens - (kv.num_committed_pages + num_known) * size
        if is_worth_waiting(num_coming * size, min(num_left, tokens_left)):
            return False
        if pages:
            kv.adopt(pages)
            self.num_page_hits += len(pages)
        return True

    def _fetch(self, operation: Operation) -> Reading | None:
        """KV of the operation's context that can be read instead of computed; sets `awaits_disk` while it is coming."""
        context, kv, size = operation.context, operation.kv, self._pool.page_size
        backing = context.backing
        if backing is None or context.num_backed - kv.num_computed < size:
            return None
        end = _readable_end(context, backing)
        num_found = context.num_backed if end == kv.num_tokens - 1 else end
        num_known = kv.num_committed_pages + len(self._pool.tier.run(kv.coming_keys()))
        if num_found < (num_known + 1) * size:
            return None
        pages = backing.fetch()
        if pages is None and backing.is_gone:
            context.backing = None
        operation.awaits_disk = pages is None and not backing.is_gone
        return None if pages is None else Reading(pages, end, backing.gaps)

    def _goal(self, kv: KvContext, reading: Reading | None) -> tuple[int, Sequence[Range]]:
        """Up to where the context needs pages now, and those that it need not have, since nobody will see them."""
        if reading is not None and reading.gaps:
            # All at once: in between it would lack what is seen there.
            return reading.end, reading.gaps
        return self._end_for_now(kv), ()

    def _take_back(self, kv: KvContext) -> None:
        """Move in what the host tier has of the context's tokens, into pages that are reserved for them.

        Tokens behind the last whole page that is known are computed again.
        """
        pool, first = self._pool, kv.num_committed_pages
        keys = list(kv.coming_keys())
        slots = pool.tier.run(keys)[: len(kv.page_ids) - first]
        if not slots:
            return
        for page, slot in zip(kv.page_ids[first : first + len(slots)], slots, strict=True):
            pool.moves.move_in(slot, page)
        pool.tier.retire(keys[: len(slots)])
        kv.advance(min((first + len(slots)) * pool.page_size, kv.num_tokens - 1))
        self.num_page_returns += len(slots)

    def _announce(self, operation: Operation, tokens_left: int) -> None:
        """Who comes later in this step may wait for what the operation computes in it."""
        kv, size = operation.kv, self._pool.page_size
        end = min(kv.num_computed + tokens_left, kv.num_tokens)
        self._coming.update(islice(kv.coming_keys(), max(end // size - kv.num_committed_pages, 0)))

    def _reserve(self, operation: Operation, is_newcomer: bool, end: int, gaps: Sequence[Range]) -> bool:
        """Pages for the first `end` tokens of the operation's context but `gaps`, taken from others if need be."""
        kv, pool = operation.kv, self._pool
        if kv.num_pages_at(end, gaps) > pool.num_pages:
            self.outgrown.append(operation)
            return False
        num_growing = self._num_growing_before(operation) if is_newcomer else 0
        if not self._make_room(operation, end, gaps, num_growing):
            if is_newcomer:
                # What it has found stays where it is until there is room for the rest.
                self.num_page_hits -= kv.num_committed_pages
                kv.uncompute(0)
            return False
        copy = kv.reserve(end, gaps)
        if copy is not None:
            pool.moves.copy(*copy)
            if (profile := operation.context.process.profile) is not None:
                profile.copied(operation)
        return True

    def num_pages_needed(self, operation: Operation) -> int:
        """That it waits for; 0: it does not wait for pages."""
        if not operation.lacks_pages or not operation.is_runnable:
            return 0
        kv, backing = operation.kv, operation.context.backing
        if backing is not None and backing.gaps and backing.is_read:
            return kv.num_new_pages(_readable_end(operation.context, backing), backing.gaps)
        return kv.num_new_pages(self._end_for_now(kv))

    def _end_for_now(self, kv: KvContext) -> int:
        """Up to where the context needs pages: to its end, or for some of it, if it lets go of others as it grows."""
        if not kv.is_bounded:
            return kv.num_tokens
        most = min(self._max_tokens, max(self._pool.num_pages // 4, 1) * self._pool.page_size)
        return min(kv.num_tokens, kv.num_computed + most)

    def _num_growing_before(self, operation: Operation) -> int:
        return sum(bool(other.kv.num_pages) for other in self.runnable if other.arrival < operation.arrival)

    def _make_room(self, operation: Operation, end: int, gaps: Sequence[Range], num_growing: int) -> bool:
        pool, kv = self._pool, operation.kv
        num_missing = num_pages_wanted(kv.num_new_pages(end, gaps), num_growing) - pool.num_free
        if num_missing <= 0:
            return True
        for context in self._victims(num_missing, operation):
            self._put_back(context)
            # Asked anew: a page that was shared with the victim need not be copied any more.
            if pool.num_free >= num_pages_wanted(kv.num_new_pages(end, gaps), num_growing):
                return True
        return False

    def _victims(self, num_missing: int, operation: Operation) -> Iterable[Context]:
        others = (each for each in self.contexts.values() if each is not operation.context and each not in self._let_in)
        holders = [_holder(context) for context in others if context.kv.num_pages]
        return (self.contexts[key] for key in victims(num_missing, operation.arrival, holders))

    def _put_back(self, context: Context) -> None:
        """Its KV is found in the pages or the host tier when it is needed, or computed again from its tokens."""
        context.kv.uncompute(0)
        self._lost_pages = True
        context.process.num_moved_out += 1
        self.num_preemptions += not context.is_idle


def _readable_end(context: Context, backing: Backing) -> int:
    """How many tokens of the context can be read. The last one is not: its logits may be wanted."""
    kv = context.kv
    return kv.reachable(min(context.num_backed, kv.num_tokens - 1), backing.gaps)


def _holder(context: Context) -> Holder:
    num_pages = context.kv.num_pages
    if context.is_idle or context.process.paused_at is not None:
        return Holder(id(context), Standing.IDLE, context.last_used, num_pages)
    operation = context.queue[0]
    standing = Standing.RUNNABLE if operation.is_runnable else Standing.PARKED
    return Holder(id(context), standing, operation.arrival, num_pages)
