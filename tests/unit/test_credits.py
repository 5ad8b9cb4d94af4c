"""Credits as people write them, and as they are counted."""

from __future__ import annotations

import math

import pytest

from pie_engine.errors import InvalidInput
from pie_engine.protocol.credits import MAX_BID, bid_of, counted, endowment_of, shown


@pytest.mark.parametrize(("credits", "micro"), [(0, 0), (1, 10**6), (0.1, 10**5), (1e-6, 1), (MAX_BID, 10**12)])
def test_credits_are_counted_in_millionths(credits, micro):
    assert bid_of(credits) == endowment_of(credits) == micro


@pytest.mark.parametrize("credits", [-1, -1e-9, math.nan, math.inf, -math.inf, MAX_BID + 0.1])
def test_what_is_no_amount_is_refused_with_the_range(credits):
    with pytest.raises(InvalidInput, match=r"a bid is a number of credits from 0 to 1000000; got "):
        bid_of(credits)
    with pytest.raises(InvalidInput, match=r"an endowment is a number of credits from 0 to 1000000; got "):
        endowment_of(credits)


def test_a_bid_that_would_count_as_none_is_refused():
    with pytest.raises(InvalidInput, match=r"a bid of 1e-08 credits is less than the smallest, 0\.000001"):
        bid_of(1e-8)


@pytest.mark.parametrize(
    ("micro", "text"), [(0, "0"), (1, "1e-06"), (2100, "0.0021"), (998_500_000, "998.5"), (-12 * 10**6, "-12")]
)
def test_shown_with_the_digits_that_count(micro, text):
    assert shown(micro) == text


def test_large_amounts_are_shown_in_full():
    assert shown(123_456_789_000) == "123457"


@pytest.mark.parametrize(("number", "text"), [("1", "1 credit"), ("0.5", "0.5 credits"), ("0", "0 credits")])
def test_one_credit_is_one(number, text):
    assert counted(number) == text
