"""Who has how many credits. Integers of micro-credits, exactly.

    sum of balances = endowments issued − cost of pages made − balances that left

after every call (`violations`). Rent only moves credits between accounts: what is collected goes back in the same call.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pie_engine.market.columns import Column, Ints, Slots
from pie_engine.protocol.credits import CREDIT

MAX_ENDOWMENT = 1_000_000 * CREDIT
"""Of one account. Keeps every product below within 63 bits for more than two thousand such accounts."""
MAX_ISSUED = 1 << 51
"""All endowments that are there at once; a join gets what is left of it."""
PAGE_COST = CREDIT


class Account(NamedTuple):
    """An account as it is now. Micro-credits."""

    balance: int
    endowment: int
    rent: int
    """Paid so far."""
    dividends: int
    """Got so far."""
    num_made: int
    """Pages made so far."""

    @property
    def spent(self) -> int:
        """For pages and rent, less dividends."""
        return self.endowment - self.balance


class Ledger:
    """An account for each process, in a seat. Seats are used again after `leave`."""

    def __init__(self, admission_quota_pages: int = 0) -> None:
        """`admission_quota_pages`: how far pages may be made on debt."""
        assert admission_quota_pages >= 0, admission_quota_pages
        self.max_debt = admission_quota_pages * PAGE_COST
        self._slots = Slots()
        self.balances = self._slots.column()
        self.endowments = self._slots.column()
        self._rents = self._slots.column()
        self._dividends = self._slots.column()
        self._num_made = self._slots.column()
        self._seats: dict[str, int] = {}
        """By process; the oldest first."""
        self._parents: dict[str, str] = {}
        self._issued = self._cost = self._left = 0
        self._present = 0
        """Endowments of the accounts that are there."""
        self.rent = self.num_made = 0
        """All that was paid, and all pages made, so far."""

    # Accounts.

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def end(self) -> int:
        """All seats are below."""
        return self._slots.end

    def column(self) -> Column:
        """What else is known of each seat: 0 for a new account."""
        return self._slots.column()

    def __contains__(self, pid: str) -> bool:
        return pid in self._seats

    def join(self, pid: str, endowment: int, parent: str | None = None) -> int:
        """The seat of a new account.

        A child's endowment comes out of the balance of its parent, as far as that goes; so does its part of the
        dividends. The parent gets back what is left when the child leaves.
        """
        assert pid not in self._seats, f"{pid} has an account"
        assert endowment >= 0, endowment
        seat = self._slots.take()
        self._seats[pid] = seat
        if parent is not None and parent in self._seats:
            self._parents[pid] = parent
            self._inherit(seat, self._seats[parent], endowment)
        else:
            self._issue(seat, endowment)
        return seat

    def _inherit(self, seat: int, parent: int, endowment: int) -> None:
        given = min(endowment, max(self.balances[parent], 0), MAX_ENDOWMENT)
        part = min(given, self.endowments[parent])
        self.balances[parent] -= given
        self.endowments[parent] -= part
        self.balances[seat], self.endowments[seat] = given, part

    def _issue(self, seat: int, endowment: int) -> None:
        issued = min(endowment, MAX_ENDOWMENT - self.endowments[seat], MAX_ISSUED - self._present)
        self.balances[seat] += issued
        self.endowments[seat] += issued
        self._issued += issued
        self._present += issued

    def endow(self, pid: str, endowment: int) -> None:
        """Give more: `endowment` micro-credits on top."""
        assert endowment >= 0, endowment
        self._issue(self._seats[pid], endowment)

    def leave(self, pid: str) -> None:
        """The balance leaves with the account; that of a child goes to its parent, debts as far as it may have them.
        Unknown processes are ignored."""
        seat = self._seats.pop(pid, None)
        if seat is None:
            return
        balance, endowment = self.balances[seat], self.endowments[seat]
        parent = self._seats.get(self._parents.pop(pid, ""))
        if parent is not None:
            returned = max(balance, -self.max_debt - self.balances[parent])
            self.balances[parent] += returned
            self.endowments[parent] += endowment
            balance -= returned
        else:
            self._present -= endowment
        self._left += balance
        self.balances[seat] = self.endowments[seat] = 0
        self._slots.give_back(seat)

    def seat(self, pid: str) -> int:
        return self._seats[pid]

    def account(self, pid: str) -> Account:
        seat = self._seats[pid]
        return Account(
            self.balances[seat],
            self.endowments[seat],
            self._rents[seat],
            self._dividends[seat],
            self._num_made[seat],
        )

    # What moves credits.

    def make(self, seat: int, num_pages: int) -> int:
        """`num_pages` were computed for the account. Returns what it has paid: a credit for each of them, as far as
        its debt may grow. Who has come to that bound makes pages for nothing, where nobody else wants them."""
        cost: int = max(min(num_pages * PAGE_COST, self.balances[seat] + self.max_debt), 0)
        self.balances[seat] -= cost
        self._num_made[seat] += num_pages
        self._cost += cost
        self.num_made += num_pages
        return cost

    def collect(self, rents: Ints) -> int:
        """Everybody pays its rent (by seat; who is not in it pays nothing), as far as its balance goes, and gets its
        part of the sum in proportion to endowments. Returns the sum."""
        end, num_payers = self.end, len(rents)
        rents = np.minimum(rents, np.maximum(self.balances.ints[:num_payers], 0))
        revenue = int(rents.sum())
        if not revenue:
            return 0
        dividends = self._dividends_of(revenue)
        self.balances.ints[:num_payers] -= rents
        self.balances.ints[:end] += dividends
        self._rents.ints[:num_payers] += rents
        self._dividends.ints[:end] += dividends
        self.rent += revenue
        return revenue

    def _dividends_of(self, revenue: int) -> Ints:
        """⌊revenue · endowment / all endowments⌋ by seat; the oldest account gets what is left over, less than a
        micro-credit for each account."""
        end = self.end
        oldest = next(iter(self._seats.values()))
        dividends = proportional(revenue, self.endowments.ints[:end], self._present)
        dividends[oldest] += revenue - int(dividends.sum())
        return dividends

    def violations(self) -> list[str]:
        """What does not add up."""
        balances = sum(self.balances[: self.end])
        found = []
        if balances != self._issued - self._cost - self._left:
            found.append(f"{balances} micro-credits are there, {self._issued - self._cost - self._left} should be")
        if sum(self.endowments[: self.end]) != self._present:
            found.append(f"endowments are {sum(self.endowments[: self.end])}, not {self._present}")
        if sum(self._rents[seat] for seat in self._seats.values()) > self.rent:
            found.append("accounts have paid more rent than was collected")
        debts = [pid for pid, seat in self._seats.items() if self.balances[seat] < -self.max_debt]
        return found + [f"{pid} has more debt than its admission quota" for pid in debts]


def proportional(amount: int, weights: Ints, total: int) -> Ints:
    """⌊amount · weight / total⌋ of each weight, exactly; `total` is at least their sum. All 0 where `total` is 0.

    The products have up to 102 bits. The quotient is computed in floating point, wrong by one at most since it has less
    than 52 bits; the remainder modulo 2⁶⁴, which is exact since it is small, says in which direction.
    """
    if total <= 0:
        return np.zeros(len(weights), np.int64)
    whole, rest = divmod(amount, total)
    quotient = (weights.astype(np.float64) * (rest / total)).astype(np.int64)
    with np.errstate(over="ignore"):
        remainder = weights * np.int64(rest) - quotient * np.int64(total)
    quotient += remainder // np.int64(total)
    return weights * np.int64(whole) + quotient
