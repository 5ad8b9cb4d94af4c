"""Who goes first and who gives way, by each policy."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pie_engine.market.book import PACED, Standing
from pie_engine.market.ledger import Ledger
from pie_engine.market.policy import (
    POLICIES,
    REFRESH_STEPS,
    TURN_STEPS,
    FcfsPolicy,
    MarketPolicy,
    Policy,
    PriorityPolicy,
    StepRecord,
)
from pie_engine.market.sharing import PARTS
from pie_engine.protocol.credits import CREDIT
from tests.thoroughness import count

ENDOWMENT = 1000 * CREDIT


class Table:
    """A policy, and contexts that claim places of a batch. Each is a process of its own unless said otherwise."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.step = 0
        self.ran: Counter[int] = Counter()
        self.num_arrivals = 0

    def add(
        self,
        pid: str = "",
        *,
        bid: int = PACED,
        num_pages: int = 0,
        endowment: int = ENDOWMENT,
        priority: int = 0,
        standing: Standing = Standing.RUNNABLE,
    ) -> int:
        policy, book = self.policy, self.policy.book
        pid = pid or f"p{len(book)}"
        if pid not in policy.ledger:
            policy.join(pid, endowment, self.step, priority=priority)
        row = book.open(policy.ledger.seat(pid), self.step, bid)
        self.hold(row, num_pages)
        if standing != Standing.IDLE:
            self.num_arrivals += 1
            book.wake(row, self.num_arrivals, self.step, num_pages)
        if standing == Standing.PARKED:
            book.park(row)
        return row

    def hold(self, row: int, num_pages: int) -> None:
        self.policy.book.num_pages[row], self.policy.book.charge[row] = num_pages, num_pages * PARTS

    @property
    def runnable(self) -> list[int]:
        book = self.policy.book
        return [row for row in range(book.end) if book.standing[row] == Standing.RUNNABLE]

    def order(self) -> list[int]:
        rows = self.runnable
        return [rows[place] for place in self.policy.order(rows, self.step + 1)]

    def run(self, num_rows: int, num_tokens: int = 1) -> list[int]:
        """One step for the first `num_rows` claims."""
        order = self.order()
        self.step += 1
        ran = order[:num_rows]
        tokens = [num_tokens] * len(ran)
        self.policy.settle(StepRecord(self.step, ran, tokens, lacked_batch=order[num_rows:]))
        self.ran.update(ran)
        return ran

    def victims(self, row: int, num_missing: int, busy: tuple[int, ...] = ()) -> list[int]:
        return self.policy.victims(row, num_missing, self.step + 1, busy).tolist()


def market(quota: int = 16, **options: int) -> Table:
    return Table(MarketPolicy(Ledger(quota), **options))


@pytest.fixture(params=["market", "priority"])
def fair(request: pytest.FixtureRequest) -> Table:
    return Table(POLICIES[request.param]())


# The order of a batch.


def test_the_higher_bid_goes_first():
    table = market()
    low, high = table.add(bid=5), table.add(bid=7)
    assert table.order() == [high, low]


def test_the_higher_priority_goes_first():
    table = Table(PriorityPolicy())
    low, high = table.add(priority=1), table.add(priority=2)
    assert table.order() == [high, low]


def test_with_fcfs_claims_take_turns_whatever_they_bid():
    table = Table(FcfsPolicy())
    rows = [table.add(bid=bid, priority=bid) for bid in (5, 9, 1)]
    assert [table.run(1) for _ in range(4)] == [[rows[0]], [rows[1]], [rows[2]], [rows[0]]]


@given(num_rows=st.integers(1, 6), adds=st.lists(st.integers(0, 9), min_size=2, max_size=25))
@settings(max_examples=count(10, 300), deadline=None)
def test_with_fcfs_every_claim_runs_when_the_others_have(num_rows, adds):
    """Whatever they bid, whenever they came: of n claims each runs once in n / R steps."""
    table = Table(FcfsPolicy(max_wait_steps=1))
    last: dict[int, int] = {}
    for bid in adds:
        for _ in range(bid % 3):
            last.update(dict.fromkeys(table.run(num_rows), table.step))
        last[table.add("crowd" if bid > 4 else "", bid=bid, priority=bid)] = table.step
    for _ in range(60):
        last.update(dict.fromkeys(table.run(num_rows), table.step))
        assert max(table.step - at for at in last.values()) < -(-len(adds) // num_rows) + 1


def test_two_equal_programs_get_equal_service(fair):
    rows = [fair.add(num_pages=4) for _ in range(2)]
    for _ in range(1000):
        fair.run(1)
    assert abs(fair.ran[rows[0]] - fair.ran[rows[1]]) <= 0.05 * 1000


def test_a_thousand_forks_get_no_more_than_one_context(fair):
    forks = [fair.add("forks") for _ in range(1000)]
    single = fair.add("single")
    for _ in range(400):
        fair.run(2)
    assert abs(fair.ran[single] - sum(fair.ran[fork] for fork in forks)) <= 0.05 * 800


def test_forks_of_a_program_take_turns(fair):
    forks = [fair.add("forks") for _ in range(10)]
    for _ in range(20):
        fair.run(5)
    assert {fair.ran[fork] for fork in forks} == {10}


def test_coming_late_or_coming_back_is_no_advantage(fair):
    old = fair.add(), fair.add()
    for _ in range(100):
        fair.run(1)
    late = fair.add()
    fair.ran.clear()
    for _ in range(300):
        fair.run(1)
    assert fair.ran[late] == pytest.approx(100, abs=5)
    book = fair.policy.book
    book.rest(late, fair.step)
    for _ in range(100):
        fair.run(1)
    book.wake(late, 99, fair.step, 1)
    fair.ran.clear()
    for _ in range(300):
        fair.run(1)
    assert fair.ran[late] == pytest.approx(100, abs=5)
    assert fair.ran[old[0]] == pytest.approx(100, abs=5)


def test_what_was_long_ago_does_not_matter():
    table = market(max_wait_steps=10**6)
    rich, poor = table.add(bid=9), table.add(bid=3)
    for _ in range(1200):
        table.run(1)
    assert table.ran[poor] == 0
    table.policy.set_bid(poor, 9)
    table.ran.clear()
    for _ in range(1200):
        table.run(1)
    assert table.ran[rich] > 100


def test_a_prompt_that_has_begun_goes_on():
    table = market()
    first, second = table.add(), table.add()
    ran = [table.run(1, num_tokens=1024)[0] for _ in range(8)]
    assert ran == [first] * 4 + [second] * 4


# Nobody starves.


@pytest.mark.parametrize("policy", ["market", "priority"])
@pytest.mark.parametrize("num_rows", [1, 2, 16])
def test_the_wait_is_bounded_though_an_adversary_bids_everything(num_rows, policy):
    table = Table(POLICIES[policy](max_wait_steps=20))
    for number in range(40):
        table.add(f"adversary {number}", bid=ENDOWMENT, num_pages=1, priority=1000)
    for _ in range(30):
        table.add("crowd", bid=ENDOWMENT, num_pages=1, priority=1000)
    victim = table.add(bid=0, endowment=0)
    num_processes, waited, longest = 42, 0, 0
    for _ in range(400):
        waited = 0 if victim in table.run(num_rows) else waited + 1
        longest = max(longest, waited)
    assert longest <= 20 + 2 * num_processes / num_rows + 1
    assert table.ran[victim] > 2


@given(
    bids=st.lists(st.integers(-1, 10**12), min_size=2, max_size=25),
    num_rows=st.integers(1, 6),
    owners=st.integers(1, 8),
)
@settings(max_examples=count(10, 300), deadline=None)
def test_every_claim_runs_within_the_bound(bids, num_rows, owners):
    table = market(max_wait_steps=10)
    rows = [table.add(f"p{number % owners}", bid=bid, num_pages=2) for number, bid in enumerate(bids)]
    # Of one process all claims have to have a turn, one after the other.
    bound = 10 + 2 * len(rows) / num_rows + 1
    last = dict.fromkeys(rows, 0)
    for _ in range(120):
        for row in table.run(num_rows):
            last[row] = table.step
        assert max(table.step - at for at in last.values()) <= bound


def test_bids_count_though_everybody_waits_too_long():
    table = market(max_wait_steps=5)
    rows = [table.add(bid=1) for _ in range(100)]
    high = table.add(bid=100)
    for _ in range(200):
        table.run(2)
    assert table.ran[high] > 150
    assert all(table.ran[row] >= 1 for row in rows)


def test_who_could_run_all_the_time_has_not_waited():
    table = market(max_wait_steps=5)
    low, high = table.add(bid=1), table.add(bid=2)
    table.step = 1000
    table.policy.all_ran(1000)
    assert table.order() == [high, low]


# Pages.


def test_idle_contexts_give_way_first_then_parked_ones_then_the_youngest():
    table = Table(FcfsPolicy())
    idle = table.add(num_pages=3, standing=Standing.IDLE)
    table.step = 7
    later_idle = table.add(num_pages=3, standing=Standing.IDLE)
    parked = table.add(num_pages=3, standing=Standing.PARKED)
    late_parked = table.add(num_pages=3, standing=Standing.PARKED)
    older = table.add(num_pages=3)
    asking = table.add()
    younger, youngest = table.add(num_pages=3), table.add(num_pages=3)
    assert table.victims(asking, 4) == [idle, later_idle, late_parked, parked, youngest, younger]
    assert older not in table.victims(asking, 4)


@given(
    ages=st.lists(st.tuples(st.sampled_from(Standing), st.integers(1, 5)), min_size=1, max_size=20),
    num_missing=st.integers(1, 60),
)
@settings(max_examples=count(20, 400), deadline=None)
def test_with_fcfs_nobody_loses_pages_to_a_younger_operation(ages, num_missing):
    """Not even one that waits for ever."""
    table = Table(FcfsPolicy(max_wait_steps=1))
    kinds = [(standing, num_pages) for standing, num_pages in ages if standing]
    rows = [table.add(num_pages=num_pages, standing=standing, bid=1) for standing, num_pages in kinds]
    asking = table.add("asks", bid=9, priority=9)
    table.step = 100
    allowed = {row for row, (standing, _) in zip(rows, kinds, strict=True) if standing < Standing.RUNNABLE}
    assert set(table.victims(asking, num_missing)) <= allowed
    first = table.add("first")
    table.policy.book.age[first] = 0
    assert set(table.victims(first, 1)) == {*rows} - {first}


@pytest.mark.parametrize("policy", POLICIES.values())
def test_nobody_gives_way_in_vain_nor_to_itself(policy):
    table = Table(policy())
    holder = table.add(num_pages=4, standing=Standing.IDLE)
    asking = table.add(num_pages=6)
    assert table.victims(asking, 4) == [holder]
    assert table.victims(asking, 5) == []


def test_who_is_in_the_batch_keeps_its_pages_for_the_step():
    table = market()
    poor, poorer = table.add(bid=2, num_pages=4), table.add(bid=1, num_pages=4)
    asking = table.add(bid=9)
    assert table.victims(asking, 3, busy=(poorer,)) == [poor]


def test_pages_go_from_low_bids_to_high_ones():
    table = market()
    low, high, middle = (table.add(bid=bid, num_pages=2) for bid in (1, 9, 5))
    asking = table.add(bid=6)
    assert table.victims(asking, 3) == [low, middle]
    assert table.victims(asking, 5) == []
    assert high not in table.victims(asking, 1)


def test_pages_go_from_low_priorities_to_high_ones():
    table = Table(PriorityPolicy())
    low = table.add(num_pages=2, priority=1)
    table.add(num_pages=2, priority=3)
    assert table.victims(table.add(priority=2), 2) == [low]


def test_an_idle_holder_loses_its_pages_before_all_that_run_unless_it_pays():
    table = market()
    running = table.add(num_pages=2)
    idle = table.add(num_pages=2, standing=Standing.IDLE)
    paying = table.add(num_pages=2, standing=Standing.IDLE, bid=CREDIT)
    assert table.victims(table.add(bid=2 * CREDIT), 5) == [idle, running, paying]


def test_a_bid_of_nothing_loses_its_pages_first():
    table = market()
    table.add(num_pages=2)
    away = table.add(num_pages=2, bid=0)
    assert table.victims(table.add(), 2)[0] == away


def test_equal_programs_do_not_throw_one_another_out():
    table = market(num_pages=8)
    holders = [table.add(num_pages=4) for _ in range(2)]
    asking = table.add()
    table.policy.book.num_wanted[asking] = 4
    assert table.victims(asking, 4) == []
    table.policy.put_back(holders[1])
    assert table.victims(holders[1], 4) == []


def test_who_holds_more_than_its_share_gives_way_first():
    table = market(num_pages=100)
    large, small = table.add(num_pages=90), table.add(num_pages=2)
    assert table.victims(table.add(), 1) == [large]
    assert small not in table.victims(table.add(), 80)


def overdue(table: Table, row: int, holder: int) -> None:
    """`row` has waited for more than 20 steps, in which `holder` ran."""
    for _ in range(22):
        table.step += 1
        table.policy.settle(StepRecord(table.step, [holder], [1], lacked_pages=[row]))


@pytest.mark.parametrize("policy", ["market", "priority"])
def test_an_overdue_claim_takes_pages_from_everybody_and_keeps_them_for_a_turn(policy):
    table = Table(POLICIES[policy](max_wait_steps=20))
    rich = table.add(bid=ENDOWMENT, num_pages=8, priority=9)
    poor = table.add(bid=0)
    assert table.victims(poor, 4) == []
    overdue(table, poor, rich)
    assert table.victims(poor, 4) == [rich]
    table.hold(rich, 0)
    table.hold(poor, 8)
    for _ in range(TURN_STEPS):
        assert table.victims(rich, 4) == []
        assert table.order()[0] == poor
        table.run(1)
    assert table.ran[poor] == TURN_STEPS
    assert table.victims(rich, 4) == [poor]


def test_a_turn_lasts_until_the_prompt_has_run():
    table = market(max_wait_steps=20)
    rich, poor = table.add(bid=ENDOWMENT, num_pages=8), table.add(bid=0)
    overdue(table, poor, rich)
    assert table.victims(poor, 4) == [rich]
    table.hold(poor, 8)
    for _ in range(3 * TURN_STEPS):
        assert table.run(1, num_tokens=16) == [poor]
    assert table.victims(rich, 4) == []


def test_one_overdue_claim_at_a_time_has_a_turn_and_a_turn_ends_with_its_context():
    table = market(max_wait_steps=20)
    rich = table.add(bid=ENDOWMENT, num_pages=8)
    first, second = table.add(bid=0), table.add(bid=0)
    overdue(table, first, rich)
    assert table.victims(first, 4) == [rich]
    assert table.victims(second, 4) == []
    table.policy.close(first)
    assert table.victims(second, 4) == [rich]


def refused(table: Table) -> tuple[int, int]:
    """A claim that lacks 4 pages, and the one to which it had to leave them."""
    holder = table.add(bid=9, num_pages=4)
    asking = table.add(bid=5)
    assert table.victims(asking, 4) == []
    return asking, holder


def test_who_was_refused_pages_gets_them_as_soon_as_the_holder_is_idle():
    table = market(num_pages=8)
    holder, asking = table.add(num_pages=4), table.add()
    assert table.victims(asking, 4) == []
    table.policy.book.rest(holder, table.step)
    assert table.victims(asking, 4) == [holder]


def test_who_was_refused_pages_gets_them_as_soon_as_it_bids_more():
    table = market()
    asking, holder = refused(table)
    table.policy.set_bid(asking, 10)
    assert table.victims(asking, 4) == [holder]


def test_who_was_refused_pages_gets_as_many_as_there_are():
    table = market()
    table.add(bid=1, num_pages=2)
    asking, _ = refused(table)
    assert table.victims(asking, 3) == []
    assert table.victims(asking, 2) == [0]


def test_who_was_refused_pages_asks_again_after_some_steps():
    table = market()
    asking, holder = refused(table)
    # As if its credits were gone; nobody says so.
    table.policy.ledger.balances[table.policy.book.account[holder]] = 0
    table.step += REFRESH_STEPS - 1
    assert table.victims(asking, 4) == []
    table.step += 1
    assert table.victims(asking, 4) == [holder]


# What it costs.


def test_while_everything_fits_nobody_pays():
    table = market()
    table.add(bid=CREDIT, num_pages=5)
    table.add(bid=CREDIT, num_pages=5)
    for step in range(1, 50):
        table.policy.all_ran(step)
    assert table.policy.price == 0
    assert table.policy.ledger.rent == 0


def test_winners_pay_the_highest_bid_that_found_no_place_and_losers_nothing():
    table = market()
    high, low, lowest = (table.add(pid, bid=bid, num_pages=10) for pid, bid in (("h", 9), ("l", 4), ("ll", 2)))
    assert table.run(1) == [high]
    assert table.policy.price == 4
    table.policy.all_ran(2)
    ledger = table.policy.ledger
    assert [ledger.account(pid).rent for pid in ("h", "l", "ll")] == [40, 0, 0]
    assert ledger.account("l").dividends == 40 // 3
    assert (low, lowest) == (1, 2)


def test_when_pages_are_short_whoever_holds_any_pays_but_no_more_than_it_bids():
    table = market()
    running, idle = table.add("r", bid=9, num_pages=10), table.add("i", bid=1, num_pages=4, standing=Standing.IDLE)
    asking = table.add("a", bid=5)
    table.policy.settle(StepRecord(1, [running], [1], lacked_pages=[asking]))
    assert table.policy.price == 5
    table.policy.all_ran(2)
    ledger = table.policy.ledger
    assert [ledger.account(pid).rent for pid in "ria"] == [50, 4, 0]
    assert idle == 1


def test_rent_is_paid_every_few_steps():
    table = market()
    for pid in "ab":
        table.add(pid, bid=8, num_pages=10)
    for _ in range(REFRESH_STEPS - 1):
        table.run(1)
    assert table.policy.ledger.rent == 0
    table.run(1)
    assert table.policy.ledger.rent == REFRESH_STEPS * 80


def test_who_leaves_pays_first_also_after_others_came():
    table = market()
    rows = {pid: table.add(pid, bid=8, num_pages=10) for pid in "ab"}
    [ran] = table.run(1)
    for number in range(40):
        table.policy.join(f"late {number}", ENDOWMENT, table.step)
    table.policy.close(ran)
    table.policy.leave(next(pid for pid, row in rows.items() if row == ran))
    assert table.policy.ledger.rent == 80
    assert not table.policy.ledger.violations()


def test_who_loses_its_pages_pays_for_the_steps_in_which_it_had_them():
    table = market()
    running, holder = table.add("r", bid=9, num_pages=10), table.add("h", bid=3, num_pages=4)
    asking = table.add("a", bid=5)

    def go(num_steps: int) -> None:
        for _ in range(num_steps):
            table.step += 1
            table.policy.settle(StepRecord(table.step, [running], [1], lacked_pages=[asking]))

    go(2)
    table.policy.put_back(holder)
    table.policy.charge([asking], 4 * PARTS)
    go(1)
    table.policy.all_ran(table.step + 1)
    ledger = table.policy.ledger
    assert [ledger.account(pid).rent for pid in "rha"] == [3 * 50, 2 * 4 * 3, 1 * 4 * 5]


def test_rent_is_of_the_mean_price_and_no_more_than_the_bid():
    table = market()
    high, low = table.add("h", bid=9, num_pages=10), table.add("l", bid=4, num_pages=10)
    asking = [table.add(pid, bid=bid) for pid, bid in (("3", 3), ("7", 7))]
    for row in asking:
        table.step += 1
        table.policy.settle(StepRecord(table.step, [high, low], [1, 1], lacked_pages=[row]))
    table.policy.all_ran(table.step + 1)
    assert [table.policy.ledger.account(pid).rent for pid in "hl"] == [2 * 50, 2 * 40]


def test_a_bid_is_no_more_than_what_can_be_paid_for_all_that_is_held():
    table = market()
    row = table.add("a", bid=ENDOWMENT, num_pages=10)
    table.add("a", bid=ENDOWMENT, num_pages=30)
    assert table.policy.bid_of(row, 1) == 1 << (ENDOWMENT // 40).bit_length() - 1


def test_who_is_in_debt_bids_nothing_and_still_runs_in_its_turn():
    table = market(quota=2, max_wait_steps=20)
    poor = table.add("poor", bid=CREDIT, endowment=0)
    rich = table.add("rich", bid=CREDIT, num_pages=4)
    for _ in range(300):
        if poor in table.run(1):
            table.policy.made(table.policy.ledger.seat("poor"), 1)
    assert table.policy.bid_of(poor, table.step + 1) == 0
    assert table.ran[poor] >= 300 // 24
    assert table.ran[rich] > 250
    # Dividends of the other's rent are all that it gets, as it has no endowment: none.
    assert table.policy.ledger.account("poor").balance == -2 * CREDIT
    assert not table.policy.ledger.violations()


def test_only_the_market_charges_for_pages():
    for policy in (FcfsPolicy(), PriorityPolicy(), MarketPolicy()):
        seat = policy.join("a", ENDOWMENT, 0)
        policy.made(seat, 3)
        assert (policy.ledger.account("a").balance < ENDOWMENT) == (policy.name == "market")


@given(data=st.data())
@settings(max_examples=count(10, 200), deadline=None)
def test_credits_are_conserved_whatever_happens(data):
    table = market()
    draw = data.draw
    for number in range(draw(st.integers(1, 8))):
        bid = draw(st.sampled_from([PACED, 0, 7, CREDIT, ENDOWMENT]))
        num_pages, endowment = draw(st.integers(0, 50)), draw(st.integers(0, ENDOWMENT))
        table.add(f"p{number % 5}", bid=bid, num_pages=num_pages, endowment=endowment)
    for _ in range(30):
        if draw(st.booleans()):
            table.run(draw(st.integers(1, 4)), num_tokens=draw(st.sampled_from([1, 100])))
            table.policy.made(draw(st.integers(0, len(table.policy.ledger) - 1)), draw(st.integers(0, 90)))
        elif table.runnable:
            row = draw(st.sampled_from(table.runnable))
            for victim in table.victims(row, draw(st.integers(1, 60))):
                table.hold(victim, 0)
        assert table.policy.ledger.violations() == []


# The columns.


def test_rows_and_seats_are_used_again_and_grow():
    table = market()
    rows = [table.add() for _ in range(100)]
    assert rows == list(range(100))
    book = table.policy.book
    book.close(40)
    assert len(book) == 99
    assert 40 not in table.runnable
    assert table.add("new") == 40
    assert book.bid[40] == PACED
    assert sorted(table.order()) == rows


def test_siblings_are_counted():
    table = market()
    rows = [table.add(pid) for pid in "aabacb"]
    book = table.policy.book
    assert book.num_siblings == 3
    for row, num_left in zip(rows, (2, 1, 0, 0, 0, 0), strict=True):
        table.policy.close(row)
        assert book.num_siblings == num_left


def test_no_claims_no_order():
    assert market().policy.order([], 1).tolist() == []
    assert market().policy.order(np.array([], np.int64), 1).tolist() == []
