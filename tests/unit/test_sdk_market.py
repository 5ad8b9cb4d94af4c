"""What programs bid, and what they see of the market, against the SDK's fake host."""

from __future__ import annotations

import math

import pytest

from inferlet import Busy, Context, InvalidInput, NotFound, scheduling
from tests.unit.sdk_runs import host, run


def test_a_bid_is_of_the_context_and_can_be_taken_back():
    async def main() -> list:
        ctx = Context().bid(0.5)
        said = [host().bids[ctx._id]]
        ctx.bid(0)
        said.append(host().bids[ctx._id])
        ctx.bid(None)
        return [*said, host().bids[ctx._id]]

    assert run(main) == [0.5, 0, None]


@pytest.mark.parametrize("credits", [-1, math.nan, math.inf, 1_000_001, "1", True, 1e-9])
def test_what_is_no_bid_is_refused_with_the_range(credits):
    async def main() -> bool:
        ctx = Context()
        with pytest.raises(InvalidInput, match=r"a bid (has to be a number of credits from 0 to 1000000|of 1e-09 is)"):
            ctx.bid(credits)
        return ctx._id in host().bids

    assert run(main) is False


def test_who_is_away_comes_back_at_the_end_of_the_block():
    async def main() -> list[bool]:
        ctx = Context()
        with ctx.idle():
            seen = [ctx._id in host().away]
        seen.append(ctx._id in host().away)
        ctx.idle()
        return [*seen, ctx._id in host().away]

    assert run(main) == [True, False, True]


def test_a_context_may_be_released_while_its_program_is_away():
    async def main() -> None:
        ctx = Context()
        with ctx.idle():
            ctx.release()
        with pytest.raises(InvalidInput, match="released"):
            ctx.idle()
        with pytest.raises(InvalidInput, match="released"):
            ctx.bid(1)

    run(main)


def test_nobody_is_away_from_a_reply_but_may_bid_for_it():
    async def main() -> None:
        ctx = Context()
        ctx.user("hi")
        stream = ctx.generate()
        ctx.bid(2)
        with pytest.raises(Busy, match="leave it idle"):
            ctx.idle()
        await stream

    run(main, replies=["Hello!"])


def test_the_market_is_seen():
    async def main() -> list[float]:
        host().market.price = 0.25
        host().market.balance = -2.0
        host().market.num_sequences = 4
        host().market.num_tokens = 8
        market = await scheduling()
        return [market.price, market.balance, market.spent, market.occupancy]

    assert run(main) == [0.25, -2.0, 1002.0, 0.5]


def test_only_models_that_are_there_have_a_market():
    async def main() -> None:
        with pytest.raises(NotFound, match="no model `large`"):
            await scheduling("large")
        with pytest.raises(InvalidInput, match="the name of a model"):
            await scheduling(3)

    run(main)
