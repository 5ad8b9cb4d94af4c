"""The policies: first come, first served; priorities; the market."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pie_engine.market.book import IDLE, PARKED
from pie_engine.market.clearing import affordable, price_of, rent, rents
from pie_engine.market.columns import Bools, Ints, ints_of, sums
from pie_engine.market.ledger import Ledger
from pie_engine.market.ordering import first_to_come
from pie_engine.market.pacing import paced_bids
from pie_engine.market.seam import (
    FOR_PAGES,
    FOR_PLACE,
    MAX_WAIT_STEPS,
    NOBODY,
    REFRESH_STEPS,
    TURN_STEPS,
    Policy,
    StepRecord,
)
from pie_engine.market.sharing import PARTS
from pie_engine.protocol.credits import PolicyName

__all__ = [
    "MAX_WAIT_STEPS",
    "NOBODY",
    "POLICIES",
    "REFRESH_STEPS",
    "TURN_STEPS",
    "FcfsPolicy",
    "MarketPolicy",
    "Policy",
    "PriorityPolicy",
    "StepRecord",
]


class FcfsPolicy(Policy):
    """First come, first served: decodes take turns, pages are the older operation's, and nobody is ever overdue."""

    name = "fcfs"

    def _ranked(self, rows: Ints, seats: Ints, since: Ints, step: int) -> Ints:
        waited = step - since
        burst = self.book.burst.ints[rows]
        if np.count_nonzero(burst):
            waited[burst > 0] = step
        return first_to_come(self.book.age.ints[rows], waited)

    def _is_overdue(self, since: int, step: int) -> bool:
        return False


class PriorityPolicy(Policy):
    """The process with the higher priority goes first."""

    name = "priority"

    def _strengths_of(self, rows: Ints | slice) -> Ints:
        return self._priorities.ints[self.book.account.ints[rows]][np.newaxis]


class MarketPolicy(Policy):
    """The higher bid goes first, and whoever has what others wanted pays what they would have."""

    name = "market"

    def __init__(
        self, ledger: Ledger | None = None, *, num_pages: int = 1, max_wait_steps: int = MAX_WAIT_STEPS
    ) -> None:
        super().__init__(ledger, num_pages=num_pages, max_wait_steps=max_wait_steps)
        self._num_steps = self._price_of_pages = self._price_of_places = 0
        """Steps with a price since rents were paid, and the sums of their prices."""
        self._owed: Ints = np.zeros(0, np.int64)
        """What was reckoned and not paid yet, by seat."""
        self._offers: Ints = np.zeros((2, 0), np.int64)
        """By seat: default bids for places in the batch and for pages."""
        self._most: Ints = np.zeros(0, np.int64)
        """By seat: the highest bid that can be paid."""
        self._fair_charge = num_pages * PARTS
        """Part of each process in the pool, as it was then."""

    def join(self, pid: str, endowment: int, step: int, *, parent: str | None = None, priority: int = 0) -> int:
        seat = super().join(pid, endowment, step, parent=parent, priority=priority)
        if num_more := max(len(self._joined) - len(self._most), 0):
            self._most = np.concatenate((self._most, np.zeros(num_more, np.int64)))
            self._offers = np.concatenate((self._offers, np.zeros((2, num_more), np.int64)), 1)
        self._offer(slice(seat, seat + 1), np.zeros(1, np.int64), step)
        return seat

    def put_back(self, row: int) -> None:
        self._reckon_one(row)
        super().put_back(row)

    def close(self, row: int) -> None:
        self._reckon_one(row)
        super().close(row)

    def charge(self, rows: Sequence[int] | Ints, shares: Ints | int) -> None:
        claims = ints_of(rows)
        self._reckon(claims[claims < self._scale.values.shape[-1]])
        self.book.num_reckoned.ints[claims] = self._num_steps
        super().charge(claims, shares)

    def leave(self, pid: str) -> None:
        self.pay()
        super().leave(pid)

    def all_ran(self, step: int) -> None:
        self._collect()
        super().all_ran(step)

    def made(self, seat: int, num_pages: int) -> None:
        self.ledger.make(seat, num_pages)

    def settle(self, record: StepRecord) -> None:
        """A page costs its holder the highest bid that lacked pages; one of a context that ran, the highest bid that
        found no place in the batch, if that is more. Nobody pays more than it bids."""
        ran = ints_of(record.ran)
        self._settle(record, ran)
        place_bids = self.strengths(record.step)
        for_pages = price_of(self._scale.values[FOR_PAGES, ints_of(record.lacked_pages)])
        for_places = price_of(place_bids[ints_of(record.lacked_batch)])
        self.price = max(for_pages, for_places)
        if not self.price:
            return
        self._num_steps += 1
        self._price_of_pages += for_pages
        self._price_of_places += for_places
        self.book.num_ran.ints[ran] += 1
        if self._num_steps >= REFRESH_STEPS:
            self._collect()

    def _reckon_one(self, row: int) -> None:
        """As `_reckon`, which takes as long for one as for hundreds."""
        book, num_steps, charge = self.book, self._num_steps, self.book.charge[row]
        if not num_steps or not charge or row >= self._scale.values.shape[-1]:
            return
        num_ran = book.num_ran[row]
        num_held = num_steps - book.num_reckoned[row] - num_ran
        is_away = book.standing[row] <= PARKED and book.bid[row] < 0
        held = 0 if is_away else min(int(self._scale.values[FOR_PAGES, row]), self._price_of_pages // num_steps)
        ran = max(held, min(int(self._scale.values[FOR_PLACE, row]), self._price_of_places // num_steps))
        self._make_room_to_owe()
        self._owed[book.account[row]] += rent(held, charge) * num_held + rent(ran, charge) * num_ran
        book.num_reckoned[row], book.num_ran[row] = num_steps, 0

    def _reckon(self, rows: Ints | slice) -> None:
        """What these owe for the steps since the last time: at the mean of their prices, for the pages that they hold
        now, and for a place in the batch in those in which they ran."""
        if not self._num_steps:
            return
        book = self.book
        charges, num_ran = book.charge.ints[rows], book.num_ran.ints[rows]
        num_held = self._num_steps - book.num_reckoned.ints[rows] - num_ran
        held = np.minimum(
            np.where(self._are_away(rows), 0, self._scale.values[FOR_PAGES, rows]),
            self._price_of_pages // self._num_steps,
        )
        ran = np.maximum(
            held, np.minimum(self._scale.values[FOR_PLACE, rows], self._price_of_places // self._num_steps)
        )
        owed = rents(held, held, charges) * num_held + rents(ran, ran, charges) * num_ran
        self._make_room_to_owe()
        np.add.at(self._owed, book.account.ints[rows], owed)
        book.num_reckoned.ints[rows] = self._num_steps
        book.num_ran.ints[rows] = 0

    def _make_room_to_owe(self) -> None:
        if len(self._owed) < self.ledger.end:
            self._owed = np.concatenate((self._owed, np.zeros(self.ledger.end - len(self._owed), np.int64)))

    def _collect(self) -> None:
        if not self._num_steps:
            return
        self._reckon(slice(0, self._scale.values.shape[-1]))
        self.book.num_ran.ints[:] = self.book.num_reckoned.ints[:] = 0
        self._num_steps = self._price_of_pages = self._price_of_places = 0
        self.pay()

    def pay(self) -> None:
        if len(self._owed):
            self.ledger.collect(self._owed)
            self._owed = np.zeros(0, np.int64)

    def _reckon_strengths(self, step: int) -> None:
        """From the balances as they are now."""
        self._fair_charge = self._num_pages * PARTS // max(len(self.ledger), 1)
        seats = self.book.account.ints[: self.book.end]
        self._offer(slice(0, self.ledger.end), self._wanted(seats), step)
        super()._reckon_strengths(step)

    def _strengths_of(self, rows: Ints | slice) -> Ints:
        """Bids for a place in the batch, as far as their processes can pay them for all that they hold or need.

        Who names no bid bids as if its process held the fair share of the pool: a program with a thousand forks, each
        of which bids less for its pages, is there as strong as one with a single context.
        """
        seats, asked = self.book.account.ints[rows], self.book.bid.ints[rows]
        bids, is_named = self._offers[:, seats], asked >= 0
        if np.count_nonzero(is_named):
            np.copyto(bids, np.minimum(asked, self._most[seats]), where=is_named)
        return bids

    def _wanted(self, seats: Ints) -> Ints:
        """By seat: pages that its contexts hold or need, as they are charged. What is out bids for what it will hold,
        else it would bid more than when it is in, and come and go. `seats`: by row."""
        book, end = self.book, len(seats)
        is_out = (book.num_pages.ints[:end] == 0) & (book.standing.ints[:end] > IDLE)
        needed = np.where(is_out, book.num_wanted.ints[:end] * PARTS, 0)
        return sums(seats, np.maximum(book.charge.ints[:end], needed), self.ledger.end)

    def _offer(self, seats: slice, wanted: Ints, step: int) -> None:
        """Make the default bids of these seats."""
        balances, ages = self.ledger.balances.ints[seats], step - self._joined.ints[seats]
        charges = np.empty((2, len(wanted)), np.int64)
        charges[0], charges[1] = self._fair_charge, wanted
        self._most[seats] = most = affordable(balances, wanted)
        self._offers[:, seats] = np.minimum(paced_bids(balances, ages, charges, self._fair_charge), most)

    def bids(self, step: int) -> Ints:
        """For pages. Who is away bids nothing."""
        self.strengths(step)
        bids: Ints = self._scale.values[FOR_PAGES]
        is_away = self._are_away(slice(0, len(bids)))
        return bids * ~is_away if is_away.any() else bids

    def _held_grades(self, rows: Ints, step: int) -> Ints:
        grades, is_away = super()._held_grades(rows, step), self._are_away(rows)
        if np.count_nonzero(is_away):
            grades[is_away] = self._scale.grade_of_nothing
        return grades

    def _are_away(self, rows: Ints | slice) -> Bools:
        """Where nothing runs, or something waits for its consumer, and the program has named no bid."""
        return (self.book.standing.ints[rows] <= PARKED) & (self.book.bid.ints[rows] < 0)


POLICIES: dict[PolicyName, type[Policy]] = {"market": MarketPolicy, "fcfs": FcfsPolicy, "priority": PriorityPolicy}
