"""The seam between the core's scheduler and those who decide: who runs, who gives pages up, and what that costs.

    policy.join(pid, endowment, step) -> seat         a process; `leave(pid)` when it ends, after its contexts
    policy.book.open(seat, step) -> row               a context; see `Book` for what happens to it
    policy.made(seat, num_pages)                      pages were computed for a process

    policy.all_ran(step)                              everything fitted: nothing else is asked, nothing is computed
    policy.order(rows, step) -> places                not all of these claims fit: who is first, who next, …
    policy.victims(row, num_missing, step) -> rows    `row` lacks pages: who gives theirs up, in this order
    policy.settle(StepRecord)                         after a step in which not everything fitted

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

from pie_engine.market.book import Book, Standing
from pie_engine.market.clearing import affordable, price_of, rents
from pie_engine.market.columns import Ints, column, vector
from pie_engine.market.fairness import BURST_TOKENS, DECODE_COST, Service
from pie_engine.market.ledger import Ledger
from pie_engine.market.pacing import paced_bids
from pie_engine.market.sharing import PARTS
from pie_engine.protocol.credits import PolicyName

MAX_WAIT_STEPS = 256
"""Default of `max_wait_steps`."""
TURN_STEPS = 32
"""The time of two pages of a decode, so that it was worth the move."""


@dataclass(slots=True)
class StepRecord:
    """What became of the claims of a step in which not everything fitted: rows of the book, each at most once."""

    step: int
    ran: Sequence[int]
    num_tokens: Sequence[int]
    """Of each of those."""
    lacked_pages: Sequence[int] = ()
    lacked_batch: Sequence[int] = ()
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
        self._joined = column()
        self._priorities = column()
        self._last_turns = column()
        """The step in which a claim of the process ran because it was overdue, or the one in which the process came."""
        self._last_free_step = 0
        """The last step in which everything ran."""
        self._turn_row = -1
        """The overdue claim that had the last turn to have pages, or has it now."""
        self._strengths: tuple[int, Ints] | None = None
        self._holders: tuple[int, Ints] | None = None
        """All contexts of a step, whoever gives pages up first first."""

    # Who is there.

    def join(self, pid: str, endowment: int, step: int, *, parent: str | None = None, priority: int = 0) -> int:
        """The seat of a new process; `endowment` in micro-credits, see `Ledger.join`."""
        seat = self.ledger.join(pid, endowment, parent)
        while seat >= len(self._joined):
            for each in (self._joined, self._priorities, self._last_turns):
                each.frombytes(bytes(8 * len(each)))
        self._joined[seat] = self._last_turns[seat] = step
        self._priorities[seat] = priority
        self._service.join(seat)
        return seat

    def leave(self, pid: str) -> None:
        """The process has ended, and its contexts are closed. Unknown ones are ignored."""
        self.ledger.leave(pid)

    def made(self, seat: int, num_pages: int) -> None:
        """So many pages were computed for a process."""

    def set_bid(self, row: int, bid: int) -> None:
        """`bid`: micro-credits for a page and a step, or `book.PACED`."""
        self.book.bid[row] = bid
        self._strengths = self._holders = None

    def bid_of(self, row: int, step: int) -> int:
        """What the context bids in fact, in micro-credits for a page and a step; 0 where there is no market."""
        return 0

    # What a step asks.

    def all_ran(self, step: int) -> None:
        """Nobody had to wait in this step."""
        self._last_free_step, self.price = step, 0

    def order(self, rows: Sequence[int], step: int) -> list[int]:
        """Places in `rows`, whoever goes first in step `step` first. `rows`: those that can run, each once."""
        claims = np.asarray(rows, np.int64)
        if not len(claims):
            return []
        since = np.maximum(vector(self.book.since)[claims], self._last_free_step)
        seats = vector(self.book.account)[claims]
        ranked = self._ranked(claims, seats, since, step)
        overdue = ranked[self._is_overdue(since, step)[ranked]]
        if len(overdue):
            ranked = _interleaved(self._in_turn(overdue, seats, since), ranked)
        if self._has_turn(step):
            is_turn = claims[ranked] == self._turn_row
            ranked = np.concatenate((ranked[is_turn], ranked[~is_turn]))
        places: list[int] = ranked.tolist()
        return places

    def victims(self, row: int, num_missing: int, step: int, busy: Sequence[int] = ()) -> list[int]:
        """Rows that give their pages up for `row`, in this order, until `num_missing` pages are free; empty if never.

        `busy` rows keep theirs. Shared pages are counted for each holder, so going through the list may free fewer than
        the sum says: stop when there are enough, and wait when there are not. Reads `Book.num_pages`.
        """
        book, rows = self.book, self._ranked_holders(step)
        num_pages = vector(book.num_pages)[rows]
        eligible = num_pages > 0
        is_turn = self._may_take_turn(row, step)
        if not is_turn:
            strengths = self.strengths(step)
            strength, weaker = strengths[row], strengths[rows]
            gives_way = (vector(book.standing)[rows] < Standing.RUNNABLE) | (vector(book.age)[rows] > book.age[row])
            eligible &= (weaker < strength) | ((weaker == strength) & gives_way)
            if self._has_turn(step):
                eligible &= rows != self._turn_row
        eligible &= rows != row
        if busy:
            eligible &= ~np.isin(rows, busy)
        if int(num_pages[eligible].sum()) < num_missing:
            return []
        if is_turn and not self._has_turn(step):
            self._turn_row, book.turn_end[row] = row, step + TURN_STEPS - 1
        found: list[int] = rows[eligible].tolist()
        return found

    def settle(self, record: StepRecord) -> None:
        """After a step in which not everything fitted."""
        book, ran = self.book, np.asarray(record.ran, np.int64)
        if not len(ran):
            return
        num_tokens = np.asarray(record.num_tokens, np.int64)
        since, seats = vector(book.since), vector(book.account)[ran]
        was_overdue = self._is_overdue(np.maximum(since[ran], self._last_free_step), record.step)
        vector(self._last_turns)[seats[was_overdue]] = record.step
        since[ran] = record.step
        self._service.add(seats, num_tokens)
        burst = vector(book.burst)
        burst[ran] = np.where(num_tokens > 1, burst[ran] + num_tokens, 0)
        if self._has_turn(record.step) and book.burst[self._turn_row]:
            book.turn_end[self._turn_row] = record.step + TURN_STEPS

    # How strong somebody is.

    def strengths(self, step: int) -> Ints:
        """By row of the book; the larger goes first. The same during a step."""
        if self._strengths is None or self._strengths[0] != step or len(self._strengths[1]) != self.book.end:
            self._strengths = step, self._strengths_now(step)
        return self._strengths[1]

    def _strengths_now(self, step: int) -> Ints:
        return np.zeros(self.book.end, np.int64)

    def _ranked(self, rows: Ints, seats: Ints, since: Ints, step: int) -> Ints:
        """Indices into `rows`, the strongest first; equals by the service that their processes got lately."""
        got = self._service.look(seats, step)[seats]
        got += _ranks(seats, since) * (DECODE_COST * self._service.unit)
        burst = vector(self.book.burst)[rows]
        got -= np.where((burst > 0) & (burst < BURST_TOKENS), BURST_TOKENS * self._service.unit, 0.0)
        return np.lexsort((since, got, -self.strengths(step)[rows]))

    def _ranked_holders(self, step: int) -> Ints:
        if self._holders is None or self._holders[0] != step:
            book = self.book
            standing = vector(book.standing)[: book.end]
            rows = np.flatnonzero(standing)
            standing, age = standing[rows], vector(book.age)[rows]
            by_age = np.where(standing == Standing.IDLE, age, -age)
            self._holders = step, rows[np.lexsort((by_age, standing, self.strengths(step)[rows]))]
        return self._holders[1]

    # Who has waited too long.

    def _in_turn(self, claims: Ints, seats: Ints, since: Ints) -> Ints:
        """Overdue claims: one of each process, then a second one of each; the process first whose last turn, or whose
        arrival, is longest ago. So nobody who comes later, and nobody with more claims, goes before twice."""
        last_turns = vector(self._last_turns)[seats[claims]]
        ranks = _ranks(seats[claims], since[claims])
        return claims[np.lexsort((since[claims], last_turns, ranks))]

    def _is_overdue(self, since: Ints, step: int) -> np.ndarray:
        return step - since > self._max_wait_steps

    def _has_turn(self, step: int) -> bool:
        row, book = self._turn_row, self.book
        return row >= 0 and book.turn_end[row] >= step and book.standing[row] == Standing.RUNNABLE

    def _may_take_turn(self, row: int, step: int) -> bool:
        if self._has_turn(step):
            return row == self._turn_row
        since = max(self.book.since[row], self._last_free_step)
        return bool(self._is_overdue(np.array([since]), step)[0])


class FcfsPolicy(Policy):
    """First come, first served: decodes take turns, pages are the older operation's, and nobody is ever overdue."""

    name = "fcfs"

    def _ranked(self, rows: Ints, seats: Ints, since: Ints, step: int) -> Ints:
        is_prompt = vector(self.book.burst)[rows] > 0
        return np.lexsort((vector(self.book.age)[rows], np.where(is_prompt, 0, since)))

    def _is_overdue(self, since: Ints, step: int) -> np.ndarray:
        return np.zeros(len(since), bool)


class PriorityPolicy(Policy):
    """The process with the higher priority goes first."""

    name = "priority"

    def _strengths_now(self, step: int) -> Ints:
        book = self.book
        return vector(self._priorities)[vector(book.account)[: book.end]]


class MarketPolicy(Policy):
    """The higher bid goes first, and whoever has what others wanted pays what they would have."""

    name = "market"

    def made(self, seat: int, num_pages: int) -> None:
        self.ledger.make(seat, num_pages)

    def bid_of(self, row: int, step: int) -> int:
        return int(self.strengths(step)[row])

    def settle(self, record: StepRecord) -> None:
        """A page costs its holder the highest bid that lacked pages; one of a context that ran, the highest bid that
        found no place in the batch, if that is more. Nobody pays more than it bids."""
        super().settle(record)
        book, bids = self.book, self.strengths(record.step)
        for_pages = price_of(bids[np.asarray(record.lacked_pages, np.int64)])
        for_batch = price_of(bids[np.asarray(record.lacked_batch, np.int64)])
        self.price = max(for_pages, for_batch)
        if self.price:
            prices = np.full(len(bids), for_pages)
            prices[np.asarray(record.ran, np.int64)] = self.price
            paid = rents(prices, bids, vector(book.charge)[: len(bids)])
            self.ledger.collect(_sums(vector(book.account)[: len(bids)], paid, self.ledger.end))

    def _strengths_now(self, step: int) -> Ints:
        """What they bid, as far as their processes can pay that for all that they hold."""
        book, end = self.book, self.ledger.end
        seats, charge = vector(book.account)[: book.end], vector(book.charge)[: book.end]
        charges, balances = _sums(seats, charge, end), vector(self.ledger.balances)[:end]
        fair_charge = self._num_pages * PARTS // max(len(self.ledger), 1)
        # What is out bids for what it will hold, else it would bid more than when it is in, and come and go.
        wanted = np.where(vector(book.num_pages)[: book.end] > 0, charge, vector(book.num_wanted)[: book.end] * PARTS)
        paced = paced_bids(balances, step - vector(self._joined)[:end], _sums(seats, wanted, end), fair_charge)
        is_away = vector(book.standing)[: book.end] <= Standing.IDLE
        asked = vector(book.bid)[: book.end]
        bids = np.where(asked < 0, np.where(is_away, 0, paced[seats]), asked)
        return np.minimum(bids, affordable(balances, charges)[seats])


POLICIES: dict[PolicyName, type[Policy]] = {"market": MarketPolicy, "fcfs": FcfsPolicy, "priority": PriorityPolicy}


def _ranks(seats: Ints, since: Ints) -> Ints:
    """Of each claim among those of its process: 0 for the one that waits longest, 1 for the next, …"""
    ranks = np.zeros(len(seats), np.int64)
    if len(seats) and np.bincount(seats).max() > 1:
        order = np.lexsort((since, seats))
        sorted_seats = seats[order]
        is_first = np.r_[True, sorted_seats[1:] != sorted_seats[:-1]]
        places = np.arange(len(seats))
        ranks[order] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return ranks


def _interleaved(first: Ints, everybody: Ints) -> Ints:
    """Every other place is for one of `first`, in their order, as long as there are any; the others in theirs."""
    rest = everybody[~np.isin(everybody, first)]
    num_pairs = min(len(first), len(rest))
    pairs = np.stack((first[:num_pairs], rest[:num_pairs]), axis=1).ravel()
    return np.concatenate((pairs, first[num_pairs:], rest[num_pairs:]))


def _sums(places: Ints, values: Ints, size: int) -> Ints:
    sums = np.zeros(size, np.int64)
    np.add.at(sums, places, values)
    return sums
