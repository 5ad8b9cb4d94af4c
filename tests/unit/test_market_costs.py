"""What pages cost: the price, rent and debts."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from pie_engine.market.book import PACED, Standing
from pie_engine.market.policy import (
    REFRESH_STEPS,
    FcfsPolicy,
    MarketPolicy,
    PriorityPolicy,
    StepRecord,
)
from pie_engine.market.sharing import PARTS
from pie_engine.protocol.credits import CREDIT
from tests.thoroughness import count
from tests.unit.market_rig import ENDOWMENT, market


def test_while_everything_fits_nobody_pays():
    table = market()
    table.add(bid=CREDIT, num_pages=5)
    table.add(bid=CREDIT, num_pages=5)
    for step in range(1, 50):
        table.policy.all_ran(step)
    assert table.policy.price == 0
    assert table.policy.ledger.rent == 0


def test_the_price_is_gone_with_the_step_that_holds_all():
    table = market()
    for pid in "ab":
        table.add(pid, bid=CREDIT, num_pages=1)
    table.run(1)
    assert table.policy.price == CREDIT
    table.policy.all_ran(2)
    assert table.policy.price == 0


def test_who_is_away_pays_only_what_its_program_has_offered():
    table = market()
    rows = [table.add(pid, bid=bid, num_pages=10) for pid, bid in (("named", 4), ("silent", PACED), ("asking", 9))]
    table.policy.strengths(1)
    for row in rows[:2]:
        table.policy.book.rest(row, 0)
    table.policy.settle(StepRecord(1, [], [], lacked_pages=rows[2:]))
    table.policy.all_ran(2)
    assert [table.policy.ledger.account(pid).rent for pid in ("named", "silent")] == [40, 0]


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
