"""Shares of pages, bids and rents: pure arithmetic."""

from __future__ import annotations

from array import array

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from pie_engine.market.clearing import affordable, price_of, rents
from pie_engine.market.pacing import MIN_REST_STEPS, paced_bids
from pie_engine.market.sharing import PARTS, charges
from pie_engine.protocol.credits import CREDIT
from tests.thoroughness import count


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def tables(*pages: list[int]) -> list[array[int]]:
    return [array("q", each) for each in pages]


# Pages as they are charged.


def test_a_page_is_split_among_its_holders():
    assert charges(tables([0, 1, 2], [0, 3], [0]), 8).tolist() == [
        PARTS // 3 + 2 * PARTS,
        PARTS // 3 + PARTS,
        PARTS // 3,
    ]


def test_what_cannot_be_split_is_the_oldest_holders():
    held = charges(tables([], [5, 7], *([[5]] * 10)), 8).tolist()
    assert held[0] == 0
    assert held[1] == PARTS + PARTS // 11 + PARTS % 11
    assert set(held[2:]) == {PARTS // 11}


def test_pages_that_were_let_go_cost_nothing():
    assert charges(tables([-1, 4, -1], [-1]), 8).tolist() == [PARTS, 0]
    assert charges([], 8).tolist() == []
    assert charges(tables([], []), 8).tolist() == [0, 0]


@given(held=st.lists(st.sets(st.integers(0, 30)), max_size=14))
@settings(max_examples=count(25, 1000), deadline=None)
def test_every_page_is_charged_once(held):
    found = charges(tables(*map(sorted, held)), 31)
    assert found.sum() == PARTS * len(set().union(*held))
    for mine, pages in zip(found, held, strict=True):
        assert sum(PARTS // sum(page in other for other in held) for page in pages) <= mine
    alike = [found[index] for index, pages in enumerate(held) if pages == held[-1]]
    assert max(alike, default=0) - min(alike, default=0) <= len(held) * 30


# Prices.


def test_the_price_is_the_highest_bid_that_did_not_fit():
    assert price_of(ints(3, 9, 4)) == 9
    assert price_of(ints()) == 0


def test_nobody_pays_more_than_its_bid():
    assert rents(ints(10, 10, 10), ints(30, 10, 4), ints(PARTS, 3 * PARTS, PARTS // 2)).tolist() == [10, 30, 2]


@given(
    balances=st.lists(st.integers(-(10**9), 10**15), min_size=1, max_size=8),
    data=st.data(),
    price=st.integers(0, 10**15),
)
@settings(max_examples=count(25, 1000), deadline=None)
def test_an_affordable_bid_is_never_more_than_the_balance(balances, data, price):
    held = data.draw(st.lists(st.integers(0, 4096 * PARTS), min_size=len(balances), max_size=len(balances)))
    bids = affordable(ints(*balances), ints(*held))
    paid = rents(np.full(len(bids), price), bids, ints(*held))
    assert all(0 <= rent <= max(balance, 0) for rent, balance in zip(paid.tolist(), balances, strict=True))


# The default bid.


def paced(balance: int, age: int = 0, pages: int = 1, fair_pages: int = 1) -> int:
    return int(paced_bids(ints(balance), ints(age), ints(pages * PARTS), fair_pages * PARTS)[0])


def test_the_default_bid_spreads_the_balance_over_the_rest():
    bid = paced(1000 * CREDIT, age=50_000, pages=40)
    assert 1000 * CREDIT / (50_000 * 40) / 2 < bid <= 1000 * CREDIT / (50_000 * 40)
    assert paced(1000 * CREDIT, age=10) == paced(1000 * CREDIT, age=MIN_REST_STEPS)


def test_equals_bid_the_same_though_one_has_paid_a_little():
    assert paced(1000 * CREDIT) == paced(999 * CREDIT)


def test_who_holds_less_than_its_share_bids_as_if_it_held_it():
    assert paced(1000 * CREDIT, pages=1, fair_pages=50) == paced(1000 * CREDIT, pages=50, fair_pages=50)
    assert paced(1000 * CREDIT, pages=200, fair_pages=50) == paced(1000 * CREDIT, pages=50, fair_pages=50) // 4


@given(balance=st.integers(-(10**9), 10**15), age=st.integers(0, 10**7), pages=st.integers(0, 10**5))
@settings(max_examples=count(25, 1000), deadline=None)
def test_the_default_bid_never_spends_the_balance_before_its_time(balance, age, pages):
    bid = paced(balance, age, pages)
    assert 0 <= bid * max(pages, 1) * max(age, MIN_REST_STEPS) <= max(balance, 0)
    assert bid & (bid - 1) == 0
