"""Which operations run in a step, and who gives pages up for them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from operator import attrgetter

from pie_engine.core.operation import Operation
from pie_engine.core.policy import Holder, Standing, num_pages_wanted, share_step, victims
from pie_engine.core.state import Context
from pie_engine.driver.base import Row
from pie_engine.kv.pool import PagePool

Batch = list[tuple[Operation, Row]]
_arrival = attrgetter("arrival")


class Scheduler:
    """Composes batches from the runnable operations, oldest first, and keeps the page pool from running dry."""

    def __init__(self, pool: PagePool, max_batch_tokens: int, max_batch_sequences: int) -> None:
        self._pool = pool
        self._max_tokens = max_batch_tokens
        self._max_sequences = max_batch_sequences
        self.runnable: list[Operation] = []
        """Begun, not over and not parked; oldest first."""
        self.contexts: dict[int, Context] = {}
        """All contexts there are, by the identity of the object: ids are only unique within a host."""
        self.copies: list[tuple[int, int]] = []
        """Page copies to be done before the rows of the last `compose` run."""
        self.outgrown: list[Operation] = []
        """Operations of the last `compose` that need more pages than there are."""
        self.num_preemptions = 0
        self._step = 0

    def add(self, operation: Operation) -> None:
        if not operation.is_runnable:
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
        context.kv.release()
        del self.contexts[id(context)]

    def compose(self, step: int) -> Batch:
        """The rows of step `step`. Their pages are reserved; `copies` have to be done first."""
        self._step = step
        self.copies, self.outgrown = [], []
        operations = self._with_pages()
        shares = share_step(
            [len(operation.kv.tokens) - operation.kv.num_computed for operation in operations],
            [operation.last_step for operation in operations],
            self._max_tokens,
            self._max_sequences,
        )
        batch = Batch()
        for operation, num_tokens in zip(operations, shares, strict=True):
            if num_tokens:
                operation.last_step = step
                batch.append((operation, operation.row(num_tokens)))
        return batch

    def _with_pages(self) -> list[Operation]:
        """The operations that could run now, with pages for all tokens of their contexts; oldest first.

        Going from old to young, whoever is put back for another has not been looked at yet.
        """
        found: list[Operation] = []
        num_prefill_tokens, is_blocked = 0, False
        for operation in self.runnable:
            kv = operation.kv
            num_tokens = len(kv.tokens)
            is_prefill = num_tokens - kv.num_computed > 1
            if is_prefill and num_prefill_tokens >= self._max_tokens:
                continue
            if num_tokens > kv.writable_end:
                # Contexts without pages are let in oldest first: a small one must not overtake a large one for ever.
                operation.lacks_pages = (is_blocked and not kv.page_ids) or not self._reserve(operation)
                if operation.lacks_pages:
                    is_blocked = is_blocked or not kv.page_ids
                    continue
            if is_prefill:
                num_prefill_tokens += num_tokens - kv.num_computed
            found.append(operation)
        return found

    def _reserve(self, operation: Operation) -> bool:
        """Pages for all tokens of the operation's context, taken from others if need be."""
        kv, pool = operation.kv, self._pool
        end = len(kv.tokens)
        if pool.num_pages_for(end) > pool.num_pages:
            self.outgrown.append(operation)
            return False
        num_growing = 0 if kv.page_ids else self._num_growing_before(operation)
        if not self._make_room(operation, end, num_growing):
            return False
        copy = kv.reserve(end)
        if copy is not None:
            self.copies.append(copy)
        return True

    def _num_growing_before(self, operation: Operation) -> int:
        return sum(bool(other.kv.page_ids) for other in self.runnable if other.arrival < operation.arrival)

    def _make_room(self, operation: Operation, end: int, num_growing: int) -> bool:
        pool, kv = self._pool, operation.kv
        num_missing = num_pages_wanted(kv.num_new_pages(end), num_growing) - pool.num_free
        if num_missing <= 0:
            return True
        for context in self._victims(num_missing, operation):
            self._put_back(context)
            # Asked anew: a page that was shared with the victim need not be copied any more.
            if pool.num_free >= num_pages_wanted(kv.num_new_pages(end), num_growing):
                return True
        return False

    def _victims(self, num_missing: int, operation: Operation) -> Iterable[Context]:
        others = (context for context in self.contexts.values() if context is not operation.context)
        holders = [_holder(context) for context in others if context.kv.page_ids]
        return (self.contexts[key] for key in victims(num_missing, operation.arrival, holders))

    def _put_back(self, context: Context) -> None:
        """Its KV is computed again from its tokens when it is needed."""
        context.kv.uncompute(0)
        self.num_preemptions += not context.is_idle


def _holder(context: Context) -> Holder:
    num_pages = len(context.kv.page_ids)
    if context.is_idle:
        return Holder(id(context), Standing.IDLE, context.last_used, num_pages)
    operation = context.queue[0]
    standing = Standing.RUNNABLE if operation.is_runnable else Standing.PARKED
    return Holder(id(context), standing, operation.arrival, num_pages)
