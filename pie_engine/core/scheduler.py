"""Which operations run in a step."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter

from pie_engine.core.claims import Claims
from pie_engine.core.drafting import num_draftable
from pie_engine.core.operation import Operation
from pie_engine.core.pace import Pace, Part
from pie_engine.core.paging import Paging
from pie_engine.core.policy import share_step
from pie_engine.core.state import Context
from pie_engine.driver.base import Row
from pie_engine.kv.pool import PagePool
from pie_engine.market.policy import Policy

Batch = list[tuple[Operation, Row]]
_arrival, _rank = attrgetter("arrival"), attrgetter("rank")


class Scheduler:
    """Composes batches from the runnable operations. Where not all of them fit, the policy says who goes first."""

    def __init__(
        self,
        pool: PagePool,
        policy: Policy,
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
        self._max_decodes = min(max_batch_tokens, max_batch_sequences)
        self.pace = Pace(step_s)
        self.claims = Claims(policy, pool)
        self.paging = Paging(pool, self.claims, max_batch_tokens)
        self._num_decodes = 0
        """Of the last step."""
        self._parts: list[Part] = []
        """Of prompts, in the last step."""
        self._is_looking = False
        """Whether prompts sit this step out, to show what the decodes take."""
        self._is_ranked = False
        """Whether this step may not hold all, so that the policy has said who goes first."""
        self.runnable: list[Operation] = []
        """Begun, not over and not parked; oldest first."""
        self.contexts: dict[int, Context] = {}
        """All contexts there are, by the identity of the object: ids are only unique within a host."""

    @property
    def standing(self) -> object:
        """Equal to what it was as long as nobody has got further, nor lost or gained a page."""
        return self._pool.num_free, [(each.arrival, each.kv.num_computed, each.kv.num_pages) for each in self.runnable]

    def add(self, operation: Operation) -> None:
        """It can run. That of a paused process is added again when it goes on."""
        if not operation.is_runnable and operation.context.process.paused_at is None:
            operation.is_runnable = True
            insort(self.runnable, operation, key=_arrival)
            self.claims.wake(operation)

    def remove(self, operation: Operation) -> None:
        if operation.is_runnable:
            operation.is_runnable = False
            self.runnable.remove(operation)
            self.claims.park(operation.context)

    def adopt(self, context: Context) -> None:
        self.contexts[id(context)] = context
        self.claims.open(context)

    def park(self, context: Context) -> None:
        """Its next operation is not ready."""
        self.claims.park(context)

    def rest(self, context: Context) -> None:
        """Nothing runs on the context any more."""
        self.claims.rest(context)

    def drop(self, context: Context) -> None:
        """The context is gone; its operations must be over."""
        if not self._pages_outlive_contexts:
            context.kv.uncompute(0)
            self._pool.forget(context.kv.coming_keys())
        context.kv.release()
        self.claims.close(context)
        del self.contexts[id(context)]

    def compose(self, step: int, spent_s: float = 0.0) -> Batch:
        """The rows of step `step`. Their pages are reserved; the moves of the pool have to be done first.

        `spent_s` have gone by since the last one.
        """
        self.claims.step += 1
        self.paging.begin()
        operations, needs = self._with_pages()

        def in_turn(indices: Sequence[int]) -> Sequence[int]:
            return sorted(indices, key=lambda index: operations[index].rank)

        chunk = self._chunk_of(operations, needs, spent_s)
        shares = share_step(needs, self._max_tokens, self._max_sequences, in_turn, chunk)
        self._settle(operations, shares)
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

    def learn(self, took_s: float) -> None:
        """How long the step that was composed last has taken."""
        self.pace.learn(self._num_decodes, self._parts, took_s)

    def _chunk_of(
        self, operations: Sequence[Operation], needs: Sequence[int], spent_s: float
    ) -> Callable[[int, int], int] | None:
        """How much of each prompt runs where others decode, or did just now: a program that runs pass after pass has
        not asked for its next one yet. None: as much as there is room for."""
        self._is_looking = False
        num_decodes = needs.count(1)
        if self.pace.is_free or len(needs) == num_decodes or not (num_decodes or self._num_decodes):
            return None
        # One row is for a prompt.
        allowance = self.pace.allowance(min(num_decodes, self._max_decodes - 1), spent_s)
        if allowance is None:
            self._is_looking = True
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
        self._is_ranked = not self._hold_all(ready, others)
        if self._is_ranked:
            self.claims.rank(self.runnable)
            others.sort(key=_rank)
        if not others:
            return ready, [1] * len(ready)
        put_back = (each for each in ready if not each.kv.writable_end)
        found, needs = self.paging.give(chain(others, put_back), self._num_growing_before)
        if self.paging.has_put_back:
            kept = (each for each in ready if each.kv.writable_end >= each.kv.num_tokens)
            ready = [each for each in kept if each.context not in self.paging.let_in]
        return ready + found, [1] * len(ready) + needs

    def _hold_all(self, ready: Sequence[Operation], others: Sequence[Operation]) -> bool:
        """Whether the step and the pool hold everybody for certain."""
        if len(self.runnable) <= 1 or not others:
            return len(self.runnable) <= self._max_decodes
        num_free, tokens_left, num_prompts, has_newcomer = self._pool.num_free, self._max_tokens - len(ready), 0, False
        for operation in others:
            kv = operation.kv
            num_free -= self.paging.num_new(kv)
            tokens_left -= kv.num_uncomputed
            if num_free < 0 or tokens_left < 0:
                return False
            num_prompts += kv.num_uncomputed > 1
            has_newcomer = has_newcomer or not kv.num_pages
        is_paced = num_prompts > 1 and not self.pace.is_free and num_prompts < len(self.runnable)
        # A newcomer leaves a page for everybody who grows.
        has_room = num_free >= len(self.runnable) or not has_newcomer
        return has_room and not is_paced and len(self.runnable) <= self._max_sequences

    def _num_growing_before(self, operation: Operation) -> int:
        """Contexts with pages of operations that go before it."""
        if not self._is_ranked:
            return 0
        return sum(bool(other.kv.num_pages) for other in self.runnable if other.rank < operation.rank)

    def _settle(self, operations: Sequence[Operation], shares: Sequence[int]) -> None:
        """Tell the policy what became of the claims."""
        if not self._is_ranked:
            self.claims.settle((), (), ())
            return
        ran = [(operation, share) for operation, share in zip(operations, shares, strict=True) if share]
        lacked = [] if self._is_looking else [*self.paging.passed_over]
        for operation, share in zip(operations, shares, strict=True):
            if not share and not (self._is_looking and operation.kv.num_uncomputed > 1):
                lacked.append(operation)
        self.claims.settle(ran, self.paging.lacking, lacked)
