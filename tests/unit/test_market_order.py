"""Who goes first in a batch, by each policy, and that nobody waits for ever."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pie_engine.market.book import PACED
from pie_engine.market.policy import (
    POLICIES,
    FcfsPolicy,
    PriorityPolicy,
    StepRecord,
)
from tests.thoroughness import count
from tests.unit.market_rig import ENDOWMENT, Table, market


@pytest.fixture(params=["market", "priority"])
def fair(request: pytest.FixtureRequest) -> Table:
    return Table(POLICIES[request.param]())


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


def test_a_step_has_as_many_places_for_one_program_as_for_its_equal(fair):
    for pid in "aaaabbbbcccc":
        fair.add(pid)
    owners = fair.policy.book.account
    for _ in range(5):
        places = [owners[row] for row in fair.run(6)]
        assert {places.count(seat) for seat in range(3)} == {2}


def test_a_decode_counts_as_two_tokens_of_a_prompt(fair):
    decodes, prompts = fair.add("d"), fair.add("p")
    for _ in range(300):
        [ran] = fair.order()[:1]
        fair.step += 1
        num_tokens = 1 if ran == decodes else 8
        fair.policy.settle(StepRecord(fair.step, [ran], [num_tokens], lacked_batch=[decodes + prompts - ran]))
        fair.policy.book.burst[prompts] = 0
        fair.ran[ran] += 1
    assert 3.5 < fair.ran[decodes] / fair.ran[prompts] < 4.5


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
