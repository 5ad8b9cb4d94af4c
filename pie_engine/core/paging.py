"""Pages for the operations of a step: what can be found instead of computed, and who gives way where they run out."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

from pie_engine.core.archive import Backing, Reading
from pie_engine.core.claims import Claims
from pie_engine.core.operation import Operation
from pie_engine.core.policy import is_worth_waiting, num_pages_wanted
from pie_engine.core.state import Context
from pie_engine.kv.context import KvContext
from pie_engine.kv.layout import Spans, outside
from pie_engine.kv.pool import PagePool


class Found(NamedTuple):
    """What need not be computed of a prompt, beside the pages that were taken over."""

    reading: Reading | None = None
    """KV of a saved context."""
    gaps: Spans = ()
    """Pages that it need not have, since nobody sees them."""


NOTHING_FOUND = Found()


class Paging:
    """Gives pages to one operation after the other, and keeps the pool from running dry."""

    def __init__(self, pool: PagePool, claims: Claims, max_tokens: int) -> None:
        self._pool = pool
        self._claims = claims
        self._max_tokens = max_tokens
        self.outgrown: list[Operation] = []
        """Operations of the last step that need more pages than there are."""
        self.restores: list[tuple[Operation, Reading]] = []
        """Operations of the last step whose KV was read from a saved context; their pages are reserved."""
        self.lacking: list[Operation] = []
        """Operations of the last step that there were no pages for."""
        self.passed_over: list[Operation] = []
        """Prompts of the last step that were not looked at, since others take all its tokens."""
        self._let_in = array("q")
        """Rows of the contexts that keep their pages in this step."""
        self.put_back: list[Operation] = []
        """Those that can run and have lost their pages in this step."""
        self.num_moved_in = 0
        """Newcomers that have got pages in this step."""
        self.is_blocked = False
        """Whether a newcomer has got none: no other one gets any in this step."""
        self._tokens_left = 0
        """Of this step, for prompts."""
        self.num_preemptions = self.num_page_hits = self.num_page_returns = 0
        self._num_hits = 0
        """Of them, those of the prompt that was looked at last."""
        self._coming: set[bytes] = set()
        """Keys of the pages that the prefills chosen so far make full in this step."""

    def begin(self) -> None:
        """A step: nobody has got anything yet."""
        self.outgrown, self.restores, self.lacking, self.passed_over, self.put_back = [], [], [], [], []
        self.is_blocked, self.num_moved_in, self._tokens_left = False, 0, self._max_tokens
        self._coming.clear()
        if self._let_in:
            self._let_in = array("q")

    @property
    def takes_newcomers(self) -> bool:
        """Whether one more can get pages in this step."""
        return self._tokens_left > 0 and not self.is_blocked

    def give(
        self, operations: Iterable[Operation], num_growing_before: Callable[[Operation], int]
    ) -> list[tuple[Operation, int]]:
        """Those that get pages for all tokens of their contexts, and how many tokens each of them has to run.

        Whoever was let in keeps its pages in this step. `num_growing_before`: see `num_pages_wanted`.
        """
        found: list[tuple[Operation, int]] = []
        for operation in operations:
            kv = operation.kv
            if kv.num_computed and kv.grow():
                operation.awaits_disk = False
                self._claims.has_grown(operation.context)
                self._let_in.append(operation.context.row)
                found.append((operation, 1))
            elif num_tokens := self._give(operation, num_growing_before):
                found.append((operation, num_tokens))
        return found

    def _give(self, operation: Operation, num_growing_before: Callable[[Operation], int]) -> int:
        """How many tokens it has to run on the pages that it gets; 0: it does not run in this step."""
        kv = operation.kv
        is_prefill = kv.num_uncomputed > 1
        if is_prefill and self._tokens_left <= 0:
            self.passed_over.append(operation)
            return 0
        # Contexts without pages are let in one after the other: a small one must not overtake a large one for ever.
        is_newcomer = not kv.num_computed and not kv.num_pages
        if is_newcomer and self.is_blocked:
            self._lack(operation)
            return 0
        operation.awaits_disk, self._num_hits = False, 0
        self._claims.note_lack(operation.context, False)
        found = self._find(operation) if is_prefill else NOTHING_FOUND
        if found is None:
            return 0
        end, gaps = self._goal(kv, found.reading, found.gaps)
        if kv.num_pages_at(end, gaps) > self._pool.num_pages:
            self.outgrown.append(operation)
            return 0
        if gaps or end > kv.writable_end:
            num_growing = num_growing_before(operation) if is_newcomer else 0
            if not self._reserve(operation, is_newcomer, end, gaps, num_growing):
                self.is_blocked = self.is_blocked or is_newcomer
                self._lack(operation)
                return 0
        self._let_in.append(operation.context.row)
        if found.reading is not None:
            reading = found.reading
            self.restores.append((operation, reading._replace(end=min(reading.end, kv.writable_end))))
            return 0
        if is_prefill:
            self._begin_prompt(operation, gaps)
        # A bounded context may have got back all that it has pages for; it goes on from there.
        return min(kv.num_uncomputed, kv.num_writable)

    def _begin_prompt(self, operation: Operation, gaps: Spans) -> None:
        """What the host tier has comes back, and the rest is computed."""
        self._take_back(operation, gaps)
        if operation.kv.num_writable:
            self._announce(operation)
            self._tokens_left -= operation.kv.num_uncomputed

    def _lack(self, operation: Operation) -> None:
        self.lacking.append(operation)
        self._claims.note_lack(operation.context, True)

    # What is there already.

    def _find(self, operation: Operation) -> Found | None:
        """What there is of the tokens that it would have to compute; None: it had better wait for more."""
        gaps = self._gaps_of(operation.kv)
        if not self._look_up(operation, gaps):
            return None
        reading = None if gaps else self._fetch(operation)
        return None if operation.awaits_disk else Found(reading, gaps)

    def _gaps_of(self, kv: KvContext) -> Spans:
        """Pages without which a context that forgets can come back: nobody sees them, and all others are known.

        Without them it does not depend on how long it has lived what that takes.
        """
        if not kv.is_bounded or kv.num_computed:
            return ()
        gaps = kv.out_of_sight()
        keys = _keys_but(kv, gaps) if gaps else []
        num_published = len(self._pool.index.run(keys))
        is_known = bool(keys) and num_published + len(self._pool.tier.run(keys[num_published:])) == len(keys)
        return gaps if is_known else ()

    def _look_up(self, operation: Operation, gaps: Spans) -> bool:
        """Take over what is published of the operation's tokens. False when it had better wait for the next step.

        It waits for pages that an operation before it makes full in this step, and finds them published then.
        """
        kv, tier, size = operation.kv, self._pool.tier, self._pool.page_size
        keys = _keys_but(kv, gaps)
        pages = self._pool.index.run(keys)
        num_known = len(pages)
        if tier.num_slots:
            num_known += len(tier.run(keys[num_known:]))
            tier.want(keys[len(pages) : num_known])
        num_coming = len(list(takewhile(self._coming.__contains__, keys[num_known:]))) if self._coming else 0
        num_left = kv.num_tokens - (kv.num_committed_pages + num_known) * size
        if is_worth_waiting(num_coming * size, min(num_left, self._tokens_left)):
            return False
        if pages:
            num_full = kv.adopt(pages, gaps)
            # What it had before it was moved out is no hit of its prompt.
            self._num_hits = min(len(pages), max(num_full - operation.context.num_seen, 0))
            operation.context.has_found(num_full)
            self._claims.has_pages(operation.context)
            self.num_page_hits += self._num_hits
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

    def _take_back(self, operation: Operation, gaps: Spans) -> None:
        """Move in what the host tier has of the context's tokens, into pages that are reserved for them.

        Tokens behind the last whole page that is known are computed again.
        """
        kv, pool = operation.kv, self._pool
        if not len(pool.tier):
            return
        keys = _keys_but(kv, gaps)
        slots = pool.tier.run(keys)
        places = list(islice(outside(gaps, kv.num_committed_pages), len(slots) + 1))
        num_moved = sum(place < len(kv.page_ids) for place in places[:-1])
        if not num_moved:
            return
        for place, slot in zip(places[:num_moved], slots, strict=False):
            pool.moves.move_in(slot, kv.page_ids[place])
        end = places[num_moved]  # past the gap that the last one ends at
        pool.tier.retire(keys[:num_moved])
        kv.advance(min(end * pool.page_size, kv.num_tokens - 1))
        operation.context.has_found(end)
        self.num_page_returns += num_moved

    def _announce(self, operation: Operation) -> None:
        """Who comes later in this step may wait for what the operation computes in it."""
        kv, size = operation.kv, self._pool.page_size
        end = min(kv.num_computed + self._tokens_left, kv.num_tokens)
        self._coming.update(islice(kv.coming_keys(), max(end // size - kv.num_committed_pages, 0)))

    # Free pages.

    def num_needed(self, operation: Operation) -> int:
        """That it waits for; 0: it does not wait for pages."""
        if not operation.is_runnable or not self._claims.lacks_pages(operation.context):
            return 0
        kv, backing = operation.kv, operation.context.backing
        if backing is not None and backing.gaps and backing.is_read:
            return kv.num_new_pages(_readable_end(operation.context, backing), backing.gaps)
        return self.num_new(kv)

    def num_new(self, kv: KvContext) -> int:
        """Free pages that the context takes, if nothing is found and nothing read."""
        return kv.num_new_pages(*self._goal(kv, None, self._gaps_of(kv)))

    def _goal(self, kv: KvContext, reading: Reading | None, gaps: Spans) -> tuple[int, Spans]:
        """Up to where the context needs pages now, and those that it need not have, since nobody will see them."""
        # Where there are gaps all at once: in between it would lack what is seen there.
        if reading is not None and reading.gaps:
            return reading.end, reading.gaps
        return (kv.num_tokens, gaps) if gaps else (self._end_for_now(kv), ())

    def _end_for_now(self, kv: KvContext) -> int:
        """Up to where the context needs pages: to its end, or for some of it, if it lets go of others as it grows."""
        if not kv.is_bounded:
            return kv.num_tokens
        most = min(self._max_tokens, max(self._pool.num_pages // 4, 1) * self._pool.page_size)
        return min(kv.num_tokens, kv.num_computed + most)

    def _reserve(self, operation: Operation, is_newcomer: bool, end: int, gaps: Spans, num_growing: int) -> bool:
        """Pages for the first `end` tokens of the operation's context but `gaps`, taken from others if need be."""
        kv, pool = operation.kv, self._pool
        if not self._make_room(operation, end, gaps, num_growing, is_newcomer=is_newcomer):
            if is_newcomer:
                # What it has found stays where it is until there is room for the rest.
                self.num_page_hits -= self._num_hits
                kv.uncompute(0)
                self._claims.has_pages(operation.context)
            return False
        if is_newcomer:
            self.num_moved_in += 1
            self._claims.moved_in(operation.context, -(-kv.num_tokens // self._max_tokens))
        copy = kv.reserve(end, gaps)
        self._claims.has_pages(operation.context)
        if copy is not None:
            pool.moves.copy(*copy)
            if (profile := operation.context.process.profile) is not None:
                profile.copied(operation)
        self.settle(operation.context)
        return True

    def _make_room(self, operation: Operation, end: int, gaps: Spans, num_growing: int, *, is_newcomer: bool) -> bool:
        pool, kv = self._pool, operation.kv
        num_missing = num_pages_wanted(kv.num_new_pages(end, gaps), num_growing) - pool.num_free
        if num_missing <= 0:
            return True
        for context in self._claims.victims(operation.context, num_missing, self._let_in, is_newcomer=is_newcomer):
            if context.kv.num_pages:
                self._put_back(context)
            # Asked anew: a page that was shared with the victim need not be copied any more.
            if pool.num_free >= num_pages_wanted(kv.num_new_pages(end, gaps), num_growing):
                return True
        return False

    def _put_back(self, context: Context) -> None:
        """Its KV is found in the pages or the host tier when it is needed, or computed again from its tokens."""
        context.has_seen()
        context.kv.uncompute(0)
        self._claims.put_back(context)
        context.process.num_moved_out += 1
        if context.queue:
            self.num_preemptions += 1
            if context.queue[0].is_runnable:
                self.put_back.append(context.queue[0])
                if self._pool.tier.num_slots:
                    context.awaited = self._pool.tier.expect(list(context.kv.coming_keys()))

    def settle(self, context: Context) -> None:
        """It is back, or does not come: host memory need not keep what it has lost."""
        if context.awaited is not None:
            self._pool.tier.settle(context.awaited)
            context.awaited = None


def _keys_but(kv: KvContext, gaps: Spans) -> Sequence[bytes]:
    """The `coming_keys` of all places but `gaps`."""
    first, keys = kv.num_committed_pages, kv.coming_keys()
    if not gaps:
        return keys
    places = takewhile(lambda place: place < first + len(keys), outside(gaps, first))
    return [keys[place - first] for place in places]


def _readable_end(context: Context, backing: Backing) -> int:
    """How many tokens of the context can be read. The last one is not: its logits may be wanted."""
    kv = context.kv
    return kv.reachable(min(context.num_backed, kv.num_tokens - 1), backing.gaps)
