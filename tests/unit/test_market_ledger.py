"""Credits: exact, whatever happens in whatever order."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pie_engine.market.ledger import MAX_ENDOWMENT, MAX_ISSUED, PAGE_COST, Ledger, proportional
from pie_engine.protocol.credits import CREDIT
from tests.thoroughness import count

AMOUNTS = st.integers(0, 5000 * CREDIT) | st.integers(0, MAX_ENDOWMENT)


def rents_of(ledger: Ledger, **paid: int) -> np.ndarray:
    rents = np.zeros(ledger.end, np.int64)
    for pid, amount in paid.items():
        rents[ledger.seat(pid)] = amount
    return rents


def test_rent_goes_back_in_proportion_to_endowments():
    ledger = Ledger()
    for pid, endowment in (("a", 100), ("b", 300), ("c", 600)):
        ledger.join(pid, endowment)
    assert ledger.collect(rents_of(ledger, c=50)) == 50
    assert [ledger.account(pid).balance for pid in "abc"] == [105, 315, 580]
    assert ledger.account("c").rent == 50
    assert ledger.account("c").dividends == 30


def test_nobody_pays_more_than_there_is():
    ledger = Ledger(admission_quota_pages=1)
    for pid in "ab":
        ledger.join(pid, 10)
    ledger.make(ledger.seat("b"), 1)
    assert ledger.collect(rents_of(ledger, a=25, b=3)) == 10
    assert [ledger.account(pid).rent for pid in "ab"] == [10, 0]


def test_what_cannot_be_divided_goes_to_the_oldest():
    ledger = Ledger()
    for pid in "gone", "a", "b", "c":
        ledger.join(pid, 100)
    ledger.leave("gone")
    ledger.collect(rents_of(ledger, c=5))
    assert [ledger.account(pid).dividends for pid in "abc"] == [3, 1, 1]


def test_pages_cost_a_credit_each_until_the_debt_is_at_its_bound():
    ledger = Ledger(admission_quota_pages=2)
    seat = ledger.join("a", 3 * CREDIT)
    assert ledger.make(seat, 4) == 4 * PAGE_COST
    assert ledger.account("a").balance == -PAGE_COST
    assert ledger.make(seat, 10) == PAGE_COST
    assert ledger.make(seat, 10) == 0
    account = ledger.account("a")
    assert (account.balance, account.num_made) == (-2 * PAGE_COST, 24)
    assert not ledger.violations()


def test_a_child_lives_on_what_its_parent_has_and_leaves_it_the_rest():
    ledger = Ledger(admission_quota_pages=5)
    ledger.join("parent", 10 * CREDIT)
    child = ledger.join("child", 4 * CREDIT, "parent")
    assert ledger.account("parent").balance == 6 * CREDIT
    assert ledger.account("parent").endowment == 6 * CREDIT
    ledger.make(child, 3)
    ledger.leave("child")
    account = ledger.account("parent")
    assert (account.balance, account.endowment) == (7 * CREDIT, 10 * CREDIT)
    assert not ledger.violations()


def test_a_child_gets_no_more_than_there_is():
    ledger = Ledger()
    ledger.join("parent", 10)
    ledger.join("child", 40, "parent")
    assert [ledger.account(pid).balance for pid in ("parent", "child")] == [0, 10]


def test_debts_of_children_come_back_as_far_as_the_parent_may_have_them():
    ledger = Ledger(admission_quota_pages=3)
    ledger.join("parent", 0)
    for number in range(4):
        ledger.make(ledger.join(f"child {number}", 0, "parent"), 2)
        ledger.leave(f"child {number}")
    assert ledger.account("parent").balance == -3 * PAGE_COST
    assert not ledger.violations()


def test_a_balance_leaves_with_its_process_and_the_seat_is_used_again():
    ledger = Ledger()
    seat = ledger.join("a", 7)
    ledger.leave("a")
    ledger.leave("a")
    assert "a" not in ledger
    assert ledger.join("b", 9) == seat
    assert ledger.account("b").balance == 9
    assert not ledger.violations()


def test_more_can_be_given_up_to_the_bound():
    ledger = Ledger()
    ledger.join("a", 5)
    ledger.endow("a", 7)
    assert ledger.account("a")[:2] == (12, 12)
    ledger.endow("a", MAX_ENDOWMENT)
    assert ledger.account("a").endowment == MAX_ENDOWMENT
    assert not ledger.violations()


def test_nobody_to_pay_is_no_division_by_zero():
    ledger = Ledger()
    ledger.join("a", 0)
    ledger.join("b", 0)
    assert ledger.collect(np.zeros(ledger.end, np.int64)) == 0
    assert proportional(5, np.zeros(2, np.int64), 0).tolist() == [0, 0]


@given(
    amount=st.integers(0, MAX_ISSUED),
    weights=st.lists(st.integers(0, MAX_ENDOWMENT) | st.integers(0, 100), min_size=1, max_size=30),
)
@settings(max_examples=count(50, 2000))
def test_proportional_parts_are_exact(amount, weights):
    total = sum(weights)
    parts = proportional(amount, np.array(weights), total)
    assert parts.tolist() == [amount * weight // total if total else 0 for weight in weights]


class Economy(RuleBasedStateMachine):
    """Whatever is done to a ledger, credits are neither made nor lost."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(admission_quota_pages=3)
        self.pids: list[str] = []
        self.num_joined = 0

    @rule(endowment=AMOUNTS, data=st.data())
    def join(self, endowment, data):
        pid = f"p{self.num_joined}"
        self.num_joined += 1
        parent = data.draw(st.none() | st.sampled_from(self.pids)) if self.pids else None
        self.ledger.join(pid, endowment, parent)
        self.pids.append(pid)

    @precondition(lambda self: self.pids)
    @rule(data=st.data())
    def leave(self, data):
        pid = data.draw(st.sampled_from(self.pids))
        self.pids.remove(pid)
        self.ledger.leave(pid)

    @precondition(lambda self: self.pids)
    @rule(data=st.data(), num_pages=st.integers(0, 6000))
    def make(self, data, num_pages):
        self.ledger.make(self.ledger.seat(data.draw(st.sampled_from(self.pids))), num_pages)

    @precondition(lambda self: self.pids)
    @rule(data=st.data(), amount=AMOUNTS)
    def endow(self, data, amount):
        self.ledger.endow(data.draw(st.sampled_from(self.pids)), amount)

    @precondition(lambda self: self.pids)
    @rule(data=st.data())
    def collect(self, data):
        rents = np.zeros(self.ledger.end, np.int64)
        for pid in self.pids:
            balance = max(self.ledger.account(pid).balance, 0)
            rents[self.ledger.seat(pid)] = data.draw(st.sampled_from([0, 1, balance // 3, balance, 2 * balance]))
        before = sum(self.ledger.account(pid).balance for pid in self.pids)
        assert self.ledger.collect(rents) <= rents.sum()
        assert sum(self.ledger.account(pid).balance for pid in self.pids) == before

    @invariant()
    def everything_adds_up(self):
        assert self.ledger.violations() == []
        assert all(self.ledger.account(pid).balance >= -self.ledger.max_debt for pid in self.pids)


Economy.TestCase.settings = settings(max_examples=count(8, 400), stateful_step_count=count(12, 60), deadline=None)
TestEconomy = Economy.TestCase


def test_a_column_has_a_place_for_each_seat_whenever_it_was_made():
    ledger = Ledger()
    seats = [ledger.join(f"p{number}", CREDIT) for number in range(40)]
    column = ledger.column()
    seats += [ledger.join(f"q{number}", CREDIT) for number in range(60)]
    for seat in seats:
        column[seat] = seat + 1
    ledger.leave("p7")
    assert ledger.join("new", CREDIT) == seats[7]
    assert [column[seat] for seat in seats] == [0 if seat == seats[7] else seat + 1 for seat in seats]
