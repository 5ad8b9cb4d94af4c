"""Which operations run in a step."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from operator import attrgetter

import numpy as np

from pie_engine.core.claims import Claims
from pie_engine.core.drafting import num_draftable
from pie_engine.core.lineage import NUM_AHEAD, look_ahead
from pie_engine.core.operation import Operation
from pie_engine.core.pace import Pace, Part
from pie_engine.core.paging import Paging
from pie_engine.core.policy import share_step
from pie_engine.core.ranking import Ranking, Ready, split
from pie_engine.core.state import Context
from pie_engine.driver.base import Row
from pie_engine.kv.pool import PagePool
from pie_engine.market.columns import Ints
from pie_engine.market.policy import Policy

Batch = list[tuple[Operation, Row]]
Share = tuple[Operation, int]
"""And how many tokens of it."""
_arrival = attrgetter("arrival")
_NOBODY: Ints = np.zeros(0, np.int64)


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
        self._ranking: Ranking | None = None
        """Who goes first; None: this step holds all."""
        self._left = _NOBODY
        """Ranks of decodes that there is no place for in this step."""
        self.has_lacked = False
        """Whether somebody had to wait in the last step; then the next one may not hold all, either."""
        self.runnable: list[Operation] = []
        """Begun, not over and not parked; oldest first."""
        self._rows = array("q")
        """Of their contexts."""
        self.contexts: dict[int, Context] = {}
        """All contexts there are, by the identity of the object: ids are only unique within a host."""

    @property
    def standing(self) -> object:
        """Equal to what it was as long as nobody has got further, nor lost or gained a page."""
        return self._pool.num_free, [(each.arrival, each.kv.num_computed, each.kv.num_pages) for each in self.runnable]

    def add(self, operation: Operation) -> None:
        """It can run. That of a paused process is added again when it goes on."""
        if operation.is_runnable:
            self.claims.has_pages(operation.context)
        elif operation.context.process.paused_at is None:
            operation.is_runnable = True
            place = bisect_left(self.runnable, operation.arrival, key=_arrival)
            self.runnable.insert(place, operation)
            self._rows.insert(place, operation.context.row)
            self.claims.wake(operation)

    def remove(self, operation: Operation) -> None:
        if operation.is_runnable:
            operation.is_runnable = False
            place = self.runnable.index(operation, bisect_left(self.runnable, operation.arrival, key=_arrival))
            del self.runnable[place], self._rows[place]
            self.claims.park(operation.context)
            self.paging.settle(operation.context)
            if not self.runnable:
                # The last step may have been too small for all; there may be no next one for long.
                self.claims.all_ran()

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
        return self.rows(step, *self.decide(spent_s))

    def rows(self, step: int, decodes: Sequence[Operation], prompts: Sequence[Share]) -> Batch:
        """Of what `decide` has decided for step `step`."""
        self._num_decodes, self._parts = len(decodes), []
        num_spare = self._max_tokens - len(decodes)
        for operation, num_tokens in prompts:
            num_spare -= num_tokens
            if num_tokens > 1:
                self._parts.append(Part(operation.kv.num_computed, num_tokens))
            else:
                self._num_decodes += 1
        if step % NUM_AHEAD == 0:
            random = [each for each in decodes if each.is_random]
            look_ahead([each.context.random for each in random], [each.kv.num_tokens for each in random])
        batch = Batch()
        for operation, num_tokens in chain(zip(decodes, repeat(1)), prompts):
            operation.last_step = step
            if operation.guesses and num_tokens == operation.kv.num_uncomputed and operation.is_writing:
                num_spare -= self._draft(operation, num_spare)
            row = operation.row(num_tokens)
            if operation.guesses:
                operation.add_drafts(row)
            if not operation.kv.is_plain:
                row.page_ids, row.start, row.layout = operation.kv.laid_out(row.start, row.end)
            batch.append((operation, row))
        return batch

    def learn(self, took_s: float) -> None:
        """How long the step that was composed last has taken."""
        self.pace.learn(self._num_decodes, self._parts, took_s)

    def decide(self, spent_s: float = 0.0) -> tuple[list[Operation], list[Share]]:
        """The decodes that run in the next step, and the prompts; their pages are reserved."""
        self.claims.step += 1
        self.paging.begin()
        ready, found = self._with_pages()
        growing = [operation for operation, need in found if need == 1]
        prompts = [(operation, need) for operation, need in found if need > 1]
        num_decodes = len(ready.operations) + len(growing)
        needs, chunk = [need for _, need in prompts], self._chunk_of(num_decodes, prompts, spent_s)
        num_running, parts = share_step(num_decodes, needs, self._max_tokens, self._max_sequences, chunk)
        num_growing = ready.num_among(growing, num_running) if num_running < num_decodes else len(growing)
        num_ready = num_running - num_growing
        shares = [(operation, part) for (operation, _), part in zip(prompts, parts, strict=True) if part]
        if self._ranking is None:
            self.claims.all_ran()
            self.has_lacked = False
        else:
            waiting = growing[num_growing:]
            if not self._is_looking:
                waiting += [operation for (operation, _), part in zip(prompts, parts, strict=True) if not part]
            ran = _with_rows(ready.rows[:num_ready], growing[:num_growing] + [each for each, _ in shares])
            num_tokens = np.ones(len(ran), np.int64)
            num_tokens[num_running:] = [part for _, part in shares]
            behind = ready.rows[num_ready:]
            if len(self._left):
                behind = np.concatenate((behind, self._ranking.rows[self._left]))
            self.claims.decode(ran[:num_running])
            self._settle(self._ranking, ran, num_tokens, _with_rows(behind, waiting))
        return ready.operations[:num_ready] + growing[:num_growing], shares

    def _chunk_of(self, num_decodes: int, prompts: Sequence[Share], spent_s: float) -> Callable[[int, int], int] | None:
        """How much of each prompt runs where others decode, or did just now: a program that runs pass after pass has
        not asked for its next one yet. None: as much as there is room for."""
        self._is_looking = False
        if self.pace.is_free or not prompts or not (num_decodes or self._num_decodes):
            return None
        # One row is for a prompt.
        allowance = self.pace.allowance(min(num_decodes, self._max_decodes - 1), spent_s)
        if allowance is None:
            self._is_looking = True
            return lambda index, most: 0
        return lambda index, most: allowance.take(prompts[index][0].kv.num_computed, most)

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
        if num_drafts:
            self.claims.has_pages(operation.context)
        return num_drafts

    def _with_pages(self) -> tuple[Ready, list[Share]]:
        """The operations that could run now, with pages for all tokens of their contexts: decodes that have them, and
        the others with how many tokens each of them has to run."""
        self._ranking = None
        if not self.has_lacked and len(self.runnable) <= self._max_decodes:
            ready, others = split(self.runnable)
            if self._hold_all(len(ready), others):
                found = self.paging.give(others, self._num_growing_before) if others else []
                return Ready(ready, _NOBODY, _NOBODY), found
        self._ranking = ranking = self.claims.ranking(self.runnable, np.array(self._rows))
        others, steady = self._look(ranking)
        ranks, self._left = steady[: self._max_decodes], steady[self._max_decodes :]
        ready = ranking.holders(ranks)
        found = self.paging.give(self._with_newcomers(ranking, others), self._num_growing_before)
        if self.paging.put_back:
            lost, ranks = ranking.take_out(self.paging.put_back, ready, ranks)
            found += self.paging.give(lost, self._num_growing_before)
            # Those may have taken pages from others in their turn.
            _, ranks = ranking.take_out(self.paging.put_back, ready, ranks)
        return Ready(ready, ranking.rows[ranks], ranks), found

    def _look(self, ranking: Ranking) -> tuple[list[Operation], Ints]:
        """Of those with pages, by rank, those that need any or have a prompt; and the ranks of the others: decodes with
        room in their pages, who are not looked at before that is used up."""
        others: list[Operation] = []
        rooms = self.claims.rooms(ranking.rows)
        unknown = (rooms <= 0).nonzero()[0]
        for rank, operation in zip(unknown.tolist(), ranking.holders(unknown), strict=True):
            if room := operation.kv.num_decodable:
                self.claims.has_room(operation.context, room)
                rooms[rank] = room
            else:
                operation.rank = rank
                others.append(operation)
        return others, (rooms > 0).nonzero()[0]

    def _with_newcomers(self, ranking: Ranking, others: Iterable[Operation]) -> Iterator[Operation]:
        """By rank, and among them as many newcomers as there are pages and tokens for, and one more."""
        newcomers = ranking.newcomers()
        newcomer = next(newcomers, None)
        for other in others:
            while newcomer is not None and newcomer.rank <= other.rank:
                yield newcomer
                newcomer = next(newcomers, None) if self.paging.takes_newcomers else None
            yield other
        while newcomer is not None:
            yield newcomer
            newcomer = next(newcomers, None) if self.paging.takes_newcomers else None

    def _hold_all(self, num_ready: int, others: Sequence[Operation]) -> bool:
        """Whether the step and the pool hold everybody for certain."""
        if not others:
            return num_ready <= self._max_decodes
        num_free, tokens_left, num_prompts, has_newcomer = self._pool.num_free, self._max_tokens - num_ready, 0, False
        for operation in others:
            kv = operation.kv
            num_free -= self.paging.num_new(kv)
            tokens_left -= kv.num_uncomputed
            if num_free < 0 or (tokens_left < 0 and len(self.runnable) > 1):
                return False
            num_prompts += kv.num_uncomputed > 1
            has_newcomer = has_newcomer or not kv.num_pages
        is_paced = num_prompts > 1 and not self.pace.is_free and num_prompts < len(self.runnable)
        # A newcomer leaves a page for everybody who grows.
        has_room = num_free >= len(self.runnable) or not has_newcomer
        return has_room and not is_paced and len(self.runnable) <= self._max_sequences

    def _num_growing_before(self, operation: Operation) -> int:
        """Contexts with pages of operations that go before it."""
        if self._ranking is None:
            return 0
        return self._ranking.num_growing_before(operation, self.paging.put_back) + self.paging.num_moved_in

    def _settle(self, ranking: Ranking, ran: Ints, num_tokens: Ints, lacked_batch: Ints) -> None:
        """Tell the policy what became of the claims: rows of those who ran, and of those with pages that did not."""
        lacked_pages = _with_rows(ranking.unseen if self.paging.is_blocked else _NOBODY, self.paging.lacking)
        if not self._is_looking:
            lacked_batch = _with_rows(lacked_batch, self.paging.passed_over)
            if not self.paging.is_blocked:
                lacked_batch = np.concatenate((lacked_batch, ranking.unseen))
        self.has_lacked = bool(len(lacked_pages) or len(lacked_batch))
        if self.has_lacked:
            self.claims.settle(ran, num_tokens, lacked_pages, lacked_batch)
        else:
            self.claims.all_ran()


def _with_rows(rows: Ints, operations: Sequence[Operation]) -> Ints:
    """And those of the contexts of `operations`."""
    if not operations:
        return rows
    return np.concatenate((rows, np.array([each.context.row for each in operations], np.int64)))
