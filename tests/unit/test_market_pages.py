"""Who gives way when pages are short, by each policy, and turns of those who waited too long."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pie_engine.market.book import Standing
from pie_engine.market.policy import (
    POLICIES,
    REFRESH_STEPS,
    TURN_STEPS,
    FcfsPolicy,
    PriorityPolicy,
    StepRecord,
)
from pie_engine.protocol.credits import CREDIT
from tests.thoroughness import count
from tests.unit.market_rig import ENDOWMENT, Table, market


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
    table.policy.book.wake(first, 0, table.step, 0)
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
