"""What the core is told of bids and credits, and what it shows of its market."""

from __future__ import annotations

from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.to_core import (
    CloseProcess,
    CreateContext,
    Endow,
    LookAtMarket,
    OpenProcess,
    SetAway,
    SetBid,
    SetProcessBid,
)
from pie_engine.protocol.to_host import Charged, Failed, MarketSeen
from tests.unit.core_rig import HOST, PAGE_SIZE, Rig


def context_of(rig: Rig, ctx: int):
    return rig.core._hosts[HOST].contexts[ctx]


def look(rig: Rig, pid: str = "p1") -> MarketSeen | Failed:
    rig.send(LookAtMarket(rig.new_id(), pid))
    (seen,) = [each for each in rig.core.take_outgoing()[HOST] if isinstance(each, MarketSeen | Failed)]
    return seen


def test_a_program_bids_for_a_context_and_its_forks():
    rig = Rig()
    ctx = rig.context("a b c")
    assert context_of(rig, ctx).bid_now is None
    rig.send(SetBid(ctx, 2500))
    fork = rig.fork(ctx, 1)
    assert context_of(rig, ctx).bid_now == context_of(rig, fork).bid_now == 2500
    rig.send(SetBid(ctx, None))
    assert (context_of(rig, ctx).bid_now, context_of(rig, fork).bid_now) == (None, 2500)


def test_who_is_away_bids_nothing_until_the_next_operation():
    rig = Rig()
    ctx = rig.context("a b c")
    rig.send(SetBid(ctx, 7), SetAway(ctx, True))
    assert context_of(rig, ctx).bid_now == 0
    assert context_of(rig, rig.fork(ctx, 1)).bid_now == 7, "a fork is for something"
    rig.send(SetAway(ctx, False))
    assert context_of(rig, ctx).bid_now == 7
    rig.send(SetAway(ctx, True))
    rig.flush(ctx)
    assert context_of(rig, ctx).bid_now == 7
    rig.run()


def test_nobody_is_away_from_what_runs():
    rig = Rig()
    ctx = rig.context("a b c")
    rig.generate(ctx, max_tokens=3)
    rig.send(SetAway(ctx, True))
    assert context_of(rig, ctx).bid_now is None
    rig.run()


def test_an_owner_bids_for_all_contexts_of_a_process():
    rig = Rig()
    first, second = rig.context("a"), rig.context("b")
    rig.send(SetBid(first, 7), SetProcessBid("p1", 5))
    assert [context_of(rig, ctx).bid_now for ctx in (first, second)] == [5, 5]
    rig.send(SetAway(second, True))
    assert context_of(rig, second).bid_now == 0
    rig.send(SetProcessBid("p1", None))
    assert [context_of(rig, ctx).bid_now for ctx in (first, second)] == [7, 0]


def test_endowments_come_with_the_process_and_grow():
    rig = Rig()
    rig.send(OpenProcess("p2", "test", endowment=3 * CREDIT, priority=4, bid=9))
    process = rig.core._hosts[HOST].processes["p2"]
    assert (process.priority, process.bid) == (4, 9)
    rig.send(OpenProcess("p2", "test", endowment=99 * CREDIT), Endow("p2", 2 * CREDIT))
    seen = look(rig, "p2")
    assert isinstance(seen, MarketSeen)
    assert (seen.balance, seen.endowment) == (5 * CREDIT, 5 * CREDIT), "what is opened twice is given once"


def test_a_process_sees_the_market():
    rig = Rig(num_pages=40)
    ctx = rig.context("a b c d e f g h")
    rig.send(SetBid(ctx, 2500))
    rig.generate(ctx, max_tokens=4)
    rig.run()
    seen = look(rig)
    assert isinstance(seen, MarketSeen)
    assert (seen.policy, seen.price, seen.rent, seen.bid) == ("market", 0, 0, 2500)
    assert seen.num_pages_in_all == 40
    assert seen.num_pages == 40 - seen.num_free_pages > 0
    assert (seen.num_sequences, seen.num_tokens, seen.num_waiting) == (1, 1, 0)
    assert (seen.max_sequences, seen.max_tokens) == (32, 64)
    assert (seen.step_s, seen.num_moved_out) == (0, 0)


def test_what_is_not_there_is_an_answer_or_ignored():
    rig = Rig()
    seen = look(rig, "nobody")
    assert isinstance(seen, Failed)
    assert seen.error.code == "not_found"
    rig.send(Endow("nobody", 1), SetProcessBid("nobody", 1), SetBid(99, 1), SetAway(99, True))
    rig.send(CreateContext(5, "p1", 1), CloseProcess("p1"))
    rig.check()


def test_hosts_hear_what_operations_have_cost_with_the_last_page_of_each():
    rig = Rig(reply="x" * 64)
    ctx = rig.context("a" * (2 * PAGE_SIZE))
    rig.flush(ctx)
    rig.run()
    assert [charged.spent for charged in rig.charged] == [2 * CREDIT]
    rig.generate(ctx, max_tokens=PAGE_SIZE + 1, ignore_eos=True)
    rig.run()
    assert [charged.spent for charged in rig.charged] == [2 * CREDIT, 3 * CREDIT]
    rig.flush(ctx)
    rig.run()
    assert len(rig.charged) == 2, "nothing new is not told"


def test_hosts_hear_what_processes_that_are_gone_have_paid_and_nothing_after_that():
    rig = Rig()
    ctx = rig.context("a" * (2 * PAGE_SIZE))
    rig.flush(ctx)
    rig.step()
    rig.charged.clear()
    rig.generate(ctx, max_tokens=1)
    rig.core.step()
    rig.send(CloseProcess("p1"))
    rig.hear()
    assert rig.charged == [Charged("p1", 2 * CREDIT, 1000 * CREDIT, is_final=True)]
    rig.send(CloseProcess("p1"), CloseProcess("nobody"))
    rig.step()
    assert len(rig.charged) == 1
    rig.check()
