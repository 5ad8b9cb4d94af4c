"""The seam between the core's scheduler and those who decide: who runs, who gives pages up, and what that costs.

    policy.join(pid, endowment, step) -> seat         a process; `leave(pid)` when it ends, after its contexts
    policy.book.open(seat, step) -> row               a context; see `Book` for what happens to it
    policy.made(seat, num_pages)                      pages were computed for a process

    policy.all_ran(step)                              everything fitted: nothing else is asked, nothing is computed
    policy.order(rows, step) -> places                not all of these claims fit: who is first, who next, …
    policy.victims(row, num_missing, step) -> rows    `row` lacks pages: who gives theirs up, in this order
    policy.settle(StepRecord)                         after a step in which not everything fitted

Rows come as arrays or lists, and go as arrays.

A decision is about strength first: the bid, the priority, or nothing at all. Then:

- Equally strong claims go by the service that their processes got lately (market, priority) or take turns (fcfs).
- Pages go from the weak to the strong; of equally strong holders idle ones give way first, the longest idle before the
  others, then parked ones, then operations that are younger than the one that asks, the youngest first.
- Nobody starves. A claim that has waited longer than `max_wait_steps` is overdue, and every other place of the order is
  for overdue claims: one of each process first, that process first whose last such place is longest ago. An overdue
  claim may take pages from everybody and then has its turn: nobody takes its pages before its prompt has run and
  `TURN_STEPS` more. Only one claim at a time has a turn. So with n processes waiting, and room for R rows, one claim of
  each is in the batch after at most `max_wait_steps + 2n/R + 1` steps, and has had its turn with pages after
  `max_wait_steps + n · (TURN_STEPS + p)` where p is what the longest prompt takes alone, whatever the others bid.

The scheduler asks in the order of the step. Whoever is in the batch already keeps its pages for this step (`busy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pie_engine.market.book import RUNNABLE, Book
from pie_engine.market.columns import Ints, ints_of
from pie_engine.market.fairness import BURST_TOKENS, DECODE_COST, Service
from pie_engine.market.ledger import Ledger
from pie_engine.market.ordering import Givers, first_to_run, interleaved, ranks
from pie_engine.market.scale import Scale
from pie_engine.protocol.credits import PolicyName

MAX_WAIT_STEPS = 256
"""Default of `max_wait_steps`."""
REFRESH_STEPS = 8
"""Rents are paid and bids computed anew after so many steps, those of contexts that have come or bid something else at
once: balances change slowly."""
TURN_STEPS = 32
"""The time of two pages of a decode, so that it was worth the move."""


FOR_PLACE, FOR_PAGES = 0, -1
"""Of strengths: where one claims a place in the batch, and where one holds pages. They may be the same."""
NOBODY: Ints = np.zeros(0, np.int64)


@dataclass(slots=True)
class StepRecord:
    """What became of the claims of a step in which not everything fitted: rows of the book, each at most once."""

    step: int
    ran: Sequence[int] | Ints
    num_tokens: Sequence[int] | Ints
    """Of each of those."""
    lacked_pages: Sequence[int] | Ints = ()
    lacked_batch: Sequence[int] | Ints = ()
    """Those that found no place in the batch, and lacked nothing else."""


class Policy:
    """What all policies have in common; nobody is stronger than anybody else. Not thread-safe."""

    name: ClassVar[PolicyName]

    def __init__(
        self, ledger: Ledger | None = None, *, num_pages: int = 1, max_wait_steps: int = MAX_WAIT_STEPS
    ) -> None:
        """`num_pages`: of the pool."""
        assert max_wait_steps > 0, max_wait_steps
        self.book = Book()
        self.ledger = Ledger() if ledger is None else ledger
        self.price = 0
        """Micro-credits for a page and a step: the highest bid that did not fit in the last step."""
        self._num_pages = num_pages
        self._max_wait_steps = max_wait_steps
        self._service = Service()
        self._joined = self.ledger.column()
        self._priorities = self.ledger.column()
        self._last_turns = self.ledger.column()
        """The step in which a claim of the process ran because it was overdue, or the one in which the process came."""
        self._last_free_step = 0
        """The last step in which everything ran."""
        self._turn_row = -1
        """The overdue claim that had the last turn to have pages, or has it now."""
        self._scale = Scale(np.zeros((1, 0), np.int64))
        """How strong contexts are, `FOR_PLACE` and `FOR_PAGES`."""
        self._reckoned_at = -REFRESH_STEPS
        """The step in which that was computed for all."""
        self._refused: tuple[int, int, int, int] | None = None
        """Of the last claim that nobody gave way to: its row, the step, pages that it could have had, and how many held
        some on whom nothing ran."""

    # Who is there.

    def join(self, pid: str, endowment: int, step: int, *, parent: str | None = None, priority: int = 0) -> int:
        """The seat of a new process; `endowment` in micro-credits, see `Ledger.join`."""
        seat = self.ledger.join(pid, endowment, parent)
        self._joined[seat] = self._last_turns[seat] = step
        self._priorities[seat] = priority
        self._service.join(seat)
        return seat

    def leave(self, pid: str) -> None:
        """The process has ended, and its contexts are closed. Unknown ones are ignored."""
        self.ledger.leave(pid)

    def made(self, seat: int, num_pages: int) -> None:
        """So many pages were computed for a process."""

    def pay(self) -> None:
        """What was reckoned is paid now: all that a process owes whose contexts are closed."""

    def set_bid(self, row: int, bid: int) -> None:
        """`bid`: micro-credits for a page and a step, or `book.PACED`."""
        if bid != self.book.bid[row]:
            self.book.bid[row] = bid
            self.book.changed.add(row)
            self._refused = None

    def put_back(self, row: int) -> None:
        """It has lost its pages."""
        self.book.put_back(row)

    def close(self, row: int) -> None:
        """The context is gone."""
        self.book.close(row)

    def charge(self, rows: Sequence[int] | Ints, shares: Ints | int) -> None:
        """Their pages were counted anew: `shares` of each, from `sharing.charges`."""
        self.book.charge.ints[ints_of(rows)] = shares

    def bids(self, step: int) -> Ints:
        """By row of the book, what contexts bid in fact, in micro-credits for a page and a step; 0 without a market."""
        return np.zeros(self.book.end, np.int64)

    def bid_of(self, row: int, step: int) -> int:
        """See `bids`."""
        return int(self.bids(step)[row])

    # What a step asks.

    def all_ran(self, step: int) -> None:
        """Nobody had to wait in this step."""
        self._last_free_step, self.price = step, 0

    def order(self, rows: Sequence[int] | Ints, step: int) -> Ints:
        """Places in `rows`, whoever goes first in step `step` first. `rows`: those that can run, each once."""
        claims = ints_of(rows)
        if not len(claims):
            return claims
        since, seats = self.book.since.ints[claims], self.book.account.ints[claims]
        oldest = int(since[since.argmin()])
        if oldest < self._last_free_step:
            oldest = self._last_free_step
            np.maximum(since, oldest, out=since)
        ranked = self._ranked(claims, seats, since, step)
        if self._is_overdue(oldest, step):
            overdue = np.flatnonzero(since < step - self._max_wait_steps)
            ranked = interleaved(overdue[self._in_turn(seats[overdue], since[overdue])], ranked)
        if self._has_turn(step):
            is_turn = claims[ranked] == self._turn_row
            ranked = np.concatenate((ranked[is_turn], ranked[~is_turn]))
        return ranked

    def givers(self, step: int) -> Givers:
        """Everybody who holds pages, in the order in which they give them up, and has not got its turn to have them."""
        rows: Ints = self.book.num_pages.ints.nonzero()[0]
        givers = Givers(rows, self._held_grades(rows, step), self.book)
        if self._has_turn(step):
            givers.keep_one(self._turn_row)
        return givers

    def victims(self, row: int, num_missing: int, step: int, busy: Sequence[int] | Ints = ()) -> Ints:
        """Rows that give their pages up for `row`, in this order, until `num_missing` pages are free; empty if never.

        `busy` rows keep theirs. Shared pages are counted for each holder, so going through the list may free fewer than
        the sum says: stop when there are enough, and wait when there are not. Reads `Book.num_pages`.
        """
        if self.asks_in_vain(row, num_missing, step):
            return NOBODY
        givers = self.givers(step)
        givers.keep(busy)
        return self.victims_among(givers, row, num_missing, step)

    def victims_among(self, givers: Givers, row: int, num_missing: int, step: int, spared: Ints = NOBODY) -> Ints:
        """As `victims`, for one after the other who does not ask in vain. `givers` of this step: who has got or lost
        pages since then `keep`s what it has. Those in the places `spared` keep theirs before this one alone."""
        is_turn = self._may_take_turn(row, step)
        num_pages = givers.num_pages[: self._num_before(givers, row, is_turn)]
        if is_turn or len(spared):
            num_pages = num_pages.copy()
            num_pages[spared[spared < len(num_pages)]] = 0
        if is_turn and (own := givers.place_of(row)) < len(num_pages):
            num_pages[own] = 0
        if (num_free := int(np.add.reduce(num_pages))) < num_missing:
            self._refused = row, step, num_free, self._num_away()
            return NOBODY
        if is_turn and not self._has_turn(step):
            self._turn_row, self.book.turn_end[row] = row, step + TURN_STEPS - 1
            givers.keep_one(row)
        found: Ints = givers.rows[num_pages.nonzero()[0]]
        return found

    def _num_before(self, givers: Givers, row: int, is_turn: bool) -> int:
        """How many of them have to give way to the row: in its turn all."""
        if is_turn:
            return len(givers.rows)
        return givers.num_before(int(self._scale.grades[FOR_PAGES, row]), self.book.firmness[row])

    def asks_in_vain(self, row: int, num_missing: int, step: int) -> bool:
        """Whether the claim need not ask again: nobody gave way to it a few steps ago, and since then nobody has gone
        away, nor has it come to lack fewer pages, nor is it overdue."""
        if self._refused is None:
            return False
        refused, at, num_free, num_away = self._refused
        if refused != row or step - at >= REFRESH_STEPS or num_missing <= num_free or self._may_take_turn(row, step):
            return False
        return self._num_away() <= num_away

    def settle(self, record: StepRecord) -> None:
        """After a step in which not everything fitted."""
        self._settle(record, ints_of(record.ran))

    def _settle(self, record: StepRecord, ran: Ints) -> None:
        if not len(ran):
            # Nobody else is there to change anything.
            self._refused = None
            return
        book, num_tokens = self.book, ints_of(record.num_tokens)
        since, seats = book.since.ints, book.account.ints[ran]
        before = since[ran]
        if self._is_overdue(max(int(before[before.argmin()]), self._last_free_step), record.step):
            is_late = np.maximum(before, self._last_free_step) < record.step - self._max_wait_steps
            self._last_turns.ints[seats[is_late]] = record.step
        since[ran] = record.step
        is_prompt = num_tokens > 1
        if np.count_nonzero(is_prompt):
            self._service.add(seats, num_tokens, is_prompt)
            book.burst.ints[ran] = np.where(is_prompt, book.burst.ints[ran] + num_tokens, 0)
        else:
            self._service.add(seats, num_tokens, None)
            book.burst.ints[ran] = 0
        if self._has_turn(record.step) and book.burst[self._turn_row]:
            book.turn_end[self._turn_row] = record.step + TURN_STEPS

    # How strong somebody is.

    def strengths(self, step: int) -> Ints:
        """By row of the book, as if something ran on all; the larger goes first. Less than `REFRESH_STEPS` old."""
        changed = self.book.changed
        if not 0 <= step - self._reckoned_at < REFRESH_STEPS:
            self._reckoned_at = step
            self._reckon_strengths(step)
            changed.clear()
        elif changed:
            rows = np.fromiter(changed, np.int64, len(changed))
            self._scale.change(rows, self._strengths_of(rows))
            changed.clear()
        found: Ints = self._scale.values[FOR_PLACE]
        return found

    def _held_grades(self, rows: Ints, step: int) -> Ints:
        """How strong these are as holders of pages: 0 for the strongest, more for weaker ones."""
        self.strengths(step)
        grades: Ints = self._scale.grades[FOR_PAGES, rows]
        return grades

    def _reckon_strengths(self, step: int) -> None:
        """Of all."""
        self._scale = Scale(self._strengths_of(slice(0, self.book.end)))

    def _strengths_of(self, rows: Ints | slice) -> Ints:
        """For a place in the batch first, and for pages last."""
        return np.zeros((1, len(self.book.account.ints[rows])), np.int64)

    def _ranked(self, rows: Ints, seats: Ints, since: Ints, step: int) -> Ints:
        """Places in `rows`, the strongest first; equals by the service that their processes got lately."""
        unit = self._service.unit
        got = self._service.look(seats, step)
        among_own = ranks(seats, since) if self.book.num_siblings else None
        if among_own is not None:
            got += among_own * (DECODE_COST * unit)
        burst = self.book.burst.ints[rows]
        if np.count_nonzero(burst):
            got -= np.where((burst > 0) & (burst < BURST_TOKENS), BURST_TOKENS * unit, 0.0)
        self.strengths(step)
        return first_to_run(self._scale.grades[FOR_PLACE, rows], got, since, step)

    def _num_away(self) -> int:
        """Contexts with pages on which nothing runs."""
        return int(np.count_nonzero(self.book.num_pages.ints * (self.book.standing.ints < RUNNABLE)))

    # Who has waited too long.

    def _in_turn(self, seats: Ints, since: Ints) -> Ints:
        """Overdue claims: one of each process, then a second one of each; the process first whose last turn, or whose
        arrival, is longest ago. So nobody who comes later, and nobody with more claims, goes before twice."""
        last_turns, among_own = self._last_turns.ints[seats], ranks(seats, since)
        return np.argsort(last_turns) if among_own is None else np.lexsort((since, last_turns, among_own))

    def _is_overdue(self, since: int, step: int) -> bool:
        return step - since > self._max_wait_steps

    def _has_turn(self, step: int) -> bool:
        row, book = self._turn_row, self.book
        return row >= 0 and book.turn_end[row] >= step and book.standing[row] == RUNNABLE

    def _may_take_turn(self, row: int, step: int) -> bool:
        if self._has_turn(step):
            return row == self._turn_row
        return self._is_overdue(max(self.book.since[row], self._last_free_step), step)
