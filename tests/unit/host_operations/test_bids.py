"""Bids, endowments and looks at the market, as a host hands them on."""

from __future__ import annotations

import math

import msgspec
import pytest

from pie_engine.errors import Busy, ErrorInfo, InvalidInput, NotFound
from pie_engine.host.cores import CoreView
from pie_engine.host.interfaces import context as contexts
from pie_engine.host.interfaces import futures, scheduling
from pie_engine.host.market import Settlements
from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.to_core import Endow, LookAtMarket, SetAway, SetBid, SetProcessBid
from pie_engine.protocol.to_gateway import Settled
from pie_engine.protocol.to_host import Charged, Failed, MarketSeen

SEEN = MarketSeen(
    0, "market", 2500, -3 * CREDIT, 7 * CREDIT, 2 * CREDIT, CREDIT, 9, 1, 3, 4, 40, 5, 60, 8, 128, 2, 0.25, 11
)


def test_bids_are_handed_on_in_micro_credits(world):
    scheduling.set_bid(world.process, world.ctx, 0.0025)
    scheduling.set_bid(world.process, world.ctx, None)
    scheduling.set_away(world.process, world.ctx, True)
    assert world.sent() == [SetBid(world.ctx, 2500), SetBid(world.ctx, None), SetAway(world.ctx, True)]


@pytest.mark.parametrize("credits", [-1, math.nan, math.inf, 1e9, 1e-9])
def test_what_is_no_bid_goes_nowhere(world, credits):
    with pytest.raises(InvalidInput, match="bid"):
        scheduling.set_bid(world.process, world.ctx, credits)
    assert world.sent() == []


def test_nobody_bids_for_a_context_that_is_gone(world):
    contexts.release(world.process, world.ctx)
    with pytest.raises(NotFound):
        scheduling.set_bid(world.process, world.ctx, 1)
    with pytest.raises(NotFound):
        scheduling.set_away(world.process, world.ctx, True)


def test_a_look_is_answered_once_in_credits(world):
    look = scheduling.look(world.process, "")
    assert world.sent() == [LookAtMarket(look, "pid")]
    with pytest.raises(Busy, match="a look at the market"):
        scheduling.finish_look(world.process, look)
    world.answer(msgspec.structs.replace(SEEN, op=look))
    assert world.ready() == [look]
    assert world.process.usage.spent == 10 * CREDIT, "what a program has seen is what its host says at its end"
    seen = scheduling.finish_look(world.process, look)
    assert (seen.price, seen.balance, seen.endowment, seen.rent, seen.dividends) == (0.0025, -3.0, 7.0, 2.0, 1.0)
    assert (seen.bid, seen.num_made, seen.num_pages, seen.num_free_pages, seen.num_pages_in_all) == (1e-6, 9, 3, 4, 40)
    assert (seen.num_sequences, seen.max_sequences, seen.num_tokens, seen.max_tokens) == (5, 8, 60, 128)
    assert (seen.step_s, seen.num_moved_out, seen.num_waiting) == (0.25, 11, 2)
    with pytest.raises(NotFound):
        scheduling.finish_look(world.process, look)
    assert not world.core.operations


def test_a_look_fails_with_what_the_core_says(world):
    look = scheduling.look(world.process, "")
    world.answer(Failed(look, ErrorInfo("not_found", "process pid is not open")))
    with pytest.raises(NotFound, match="pid is not open"):
        scheduling.finish_look(world.process, look)


def test_a_look_that_nobody_wants_leaves_nothing(world):
    look = scheduling.look(world.process, "")
    futures.forget(world.process, look)
    assert not world.core.operations
    world.answer(msgspec.structs.replace(SEEN, op=look))
    scheduling.look(world.process, "")
    world.process.close()
    assert not world.core.operations


def test_who_only_looks_ends_with_the_core(world):
    contexts.release(world.process, world.ctx)
    assert not world.process.uses(world.core)
    scheduling.look(world.process, "")
    assert world.process.uses(world.core)


def test_what_an_owner_says_goes_to_the_cores_that_know_the_process(world):
    wallet = world.process.wallet
    wallet.endow(5, world.services.cores)
    wallet.endow(5, world.services.cores)
    wallet.endow(3, world.services.cores)
    wallet.set_bid(9, world.services.cores)
    wallet.set_bid(9, world.services.cores)
    assert world.sent() == [Endow("pid", 5), SetProcessBid("pid", 9)], "credits are given once, and never taken"
    world.core.close("pid")
    world.sent()
    wallet.endow(8, world.services.cores)
    wallet.enter(world.core)
    (opening,) = world.sent()
    assert (opening.endowment, opening.bid) == (8, 9)


def test_what_was_spent_is_summed_over_cores(world):
    world.process.wallet.charged(world.core, 3, 10)
    world.process.wallet.charged(world.core, 4, 10)
    world.process.wallet.charged(CoreView("boot-2", world.core.model), 1, 10)
    assert (world.process.usage.spent, world.process.usage.endowment) == (5, 20)


class TestSettlements:
    """What was paid in the end, of a process that has ended."""

    @pytest.fixture
    def told(self) -> list[Settled]:
        return []

    @pytest.fixture
    def ended(self, world, told):
        world.process.wallet.charged(world.core, 4, 10)
        settlements = Settlements(told.append)
        settlements.begin("pid", world.process.wallet, world.services.cores)
        return settlements

    @pytest.fixture
    def of_two(self, world, told):
        """With another core, which the process has used, too."""
        other = CoreView("boot-2", world.core.model)
        world.process.wallet.enter(other)
        settlements = Settlements(told.append)
        settlements.begin("pid", world.process.wallet, [world.core, other])
        settlements.charged(other, Charged("pid", 3, 20, is_final=True))
        return settlements

    def test_is_told_when_the_core_has_had_its_last_word(self, world, ended, told):
        ended.charged(world.core, Charged("pid", 5, 10))
        assert told == [], "that was under way"
        for _ in range(2):
            ended.charged(world.core, Charged("pid", 6, 10, is_final=True))
        assert told == [Settled("pid", 6, 10)]

    def test_is_not_told_when_it_is_what_was_told_before(self, world, ended, told):
        ended.charged(world.core, Charged("pid", 4, 10, is_final=True))
        ended.lost(world.core)
        assert told == []

    def test_is_the_sum_over_all_cores(self, world, of_two, told):
        assert told == []
        of_two.charged(world.core, Charged("pid", 1, 10, is_final=True))
        assert told == [Settled("pid", 4, 30)]

    def test_does_not_wait_for_a_core_that_has_died(self, world, of_two, told):
        of_two.lost(world.core)
        assert told == [Settled("pid", 3, 20)]

    def test_waits_for_nobody_where_no_core_is_left(self, world, told):
        settlements = Settlements(told.append)
        settlements.begin("pid", world.process.wallet, [])
        settlements.charged(world.core, Charged("pid", 4, 20, is_final=True))
        assert told == []
