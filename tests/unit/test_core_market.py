"""The market in a core: who runs first, who keeps its pages, what that costs, and that nobody starves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pie_engine.config import SchedulingSection
from pie_engine.core.loop import STANDSTILL_STEP_S
from pie_engine.market.policy import MAX_WAIT_STEPS, TURN_STEPS
from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.to_core import CloseProcess, Endow, OpenProcess, PauseProcess, SetAway, SetBid, SetProcessBid
from tests.unit.core_rig import RANDOM, Rig


def open_all(rig: Rig, *pids: str, endowment: int = 1000 * CREDIT) -> None:
    rig.send(*(OpenProcess(pid, "test", endowment=endowment) for pid in pids))


def go(rig: Rig, num_steps: int) -> None:
    for _ in range(num_steps):
        rig.step(after_s=0.1)
        rig.take_all()


def steps_until(rig: Rig, op: int, most: int = 2000) -> int:
    for number in range(1, most):
        go(rig, 1)
        if op in rig.heard and rig.heard[op].num_answers and (rig.heard[op].finish or rig.heard[op].is_flushed):
            return number
    raise AssertionError(f"{op} is not over after {most} steps")


def is_over(rig: Rig, op: int) -> bool:
    return op in rig.heard and rig.heard[op].finish is not None


def usage(rig: Rig, pid: str):
    return next(each for each in rig.core.stats().processes or [] if each.pid == pid)


def crowd(rig: Rig, number: int, *, prompt: str = "abcd", bid: int | None = CREDIT // 100) -> list[int]:
    """Programs of one endless plan each."""
    ops = []
    for index in range(number):
        open_all(rig, f"crowd {index}")
        ctx = rig.context(f"{index}{prompt}", pid=f"crowd {index}")
        rig.send(SetBid(ctx, bid))
        ops.append(rig.generate(ctx, ignore_eos=True))
    return ops


def latency(bid: int | None, *, num_pages: int, max_batch_sequences: int, prompt: str) -> int:
    """Steps that a program takes for 10 tokens among six others."""
    scheduling = SchedulingSection(max_wait_steps=50)
    rig = Rig(num_pages=num_pages, max_batch_sequences=max_batch_sequences, scheduling=scheduling)
    crowd(rig, 6, prompt=prompt)
    go(rig, 10)
    open_all(rig, "p2")
    ctx = rig.context(prompt, pid="p2")
    rig.send(SetBid(ctx, bid))
    steps = steps_until(rig, rig.generate(ctx, max_tokens=10, ignore_eos=True))
    rig.check()
    return steps


def test_a_higher_bid_waits_less_for_a_place_in_the_batch():
    low, equal, high = (
        latency(bid, num_pages=4000, max_batch_sequences=2, prompt="abcd") for bid in (0, CREDIT // 100, CREDIT // 10)
    )
    assert high <= 12
    assert high < equal < low


def test_a_higher_bid_waits_less_for_pages():
    low, high = (latency(bid, num_pages=45, max_batch_sequences=32, prompt="x" * 40) for bid in (0, CREDIT // 10))
    assert high <= 15
    assert high < low / 2


def test_nobody_starves_beside_one_that_bids_everything():
    max_wait = 20
    rig = Rig(num_pages=4000, max_batch_sequences=2, scheduling=SchedulingSection(max_wait_steps=max_wait))
    open_all(rig, "rich", endowment=100_000 * CREDIT)
    open_all(rig, "poor", endowment=0)
    for _ in range(8):
        ctx = rig.context("rich", pid="rich")
        rig.send(SetBid(ctx, 100_000 * CREDIT))
        rig.generate(ctx, ignore_eos=True)
    go(rig, 10)
    op = rig.generate(rig.context("poor", pid="poor"), max_tokens=10, ignore_eos=True)
    # `market.policy` states the bound: a turn for one claim of each of two processes.
    assert steps_until(rig, op) <= 12 * (max_wait + 2 * 2 // 2 + 1)
    rig.check()


def test_nobody_starves_for_pages_beside_one_that_bids_everything():
    max_wait = 20
    rig = Rig(num_pages=40, scheduling=SchedulingSection(max_wait_steps=max_wait))
    open_all(rig, "rich", endowment=100_000 * CREDIT)
    open_all(rig, "poor", endowment=0)
    for index in range(8):
        ctx = rig.context(f"{index}" * 30, pid="rich")
        rig.send(SetBid(ctx, 100_000 * CREDIT))
        rig.generate(ctx, max_tokens=100, ignore_eos=True)
    go(rig, 30)
    op = rig.generate(rig.context("p" * 30, pid="poor"), max_tokens=10, ignore_eos=True)
    assert steps_until(rig, op) <= 2 * (max_wait + 2 * (TURN_STEPS + 2))
    rig.check()


def test_steps_are_counted_while_nobody_can_run():
    """Else whoever keeps pages without running would neither pay for them nor ever lose them."""
    rig = Rig(num_pages=20)
    open_all(rig, "holder", "waiter")
    held = rig.context("h" * 40, pid="holder")
    rig.send(SetBid(held, CREDIT))
    rig.flush(held)
    rig.run()
    wanted = rig.context("w" * 48, pid="waiter")
    rig.send(SetBid(wanted, CREDIT // 10))
    waiting = rig.flush(wanted)
    rig.step(2)
    num_steps = 0
    while waiting not in rig.heard or not rig.heard[waiting].is_flushed:
        assert num_steps < MAX_WAIT_STEPS + 8
        if rig.core.is_idle:
            due_at = rig.core.next_due_at
            assert due_at is not None
            assert due_at >= rig.now + STANDSTILL_STEP_S, "it sleeps in between"
            rig.now = due_at
        num_steps += 1
        rig.step()
    assert num_steps > MAX_WAIT_STEPS - 8
    assert rig.core._scheduler.claims.ledger.account("holder").rent > 0
    rig.step()
    assert rig.core.next_due_at is None


def test_while_everything_fits_nobody_pays_but_for_pages_made():
    rig = Rig()
    open_all(rig, "p2")
    for pid in ("p1", "p2"):
        rig.generate(rig.context(pid * 20, pid=pid), max_tokens=20, ignore_eos=True)
    rig.run()
    market = rig.core.stats().market
    assert (market.price, market.rent) == (0, 0)
    for pid in ("p1", "p2"):
        seen = usage(rig, pid)
        assert seen.num_made == 14  # 40 tokens and 19 whose KV is there: the last one was never read
        assert seen.balance == seen.endowment - 14 * CREDIT


def test_who_can_never_have_its_pages_sets_no_price():
    rig = Rig(num_pages=4)
    open_all(rig, "p2")
    ctx = rig.context("a" * 10)
    rig.send(SetBid(ctx, CREDIT))
    op = rig.generate(ctx)
    rig.run()
    assert rig.heard[op].finish == "pages"
    market = rig.core.stats().market
    assert (market.price, market.rent) == (0, 0)


def test_when_all_who_wanted_something_are_gone_it_costs_nothing():
    """A program that waits for a low price would wait for ever."""
    rig = Rig(num_pages=4000, max_batch_sequences=1)
    crowd(rig, 3, bid=CREDIT)
    go(rig, 20)
    assert rig.core.stats().market.price == CREDIT
    rig.send(*(CloseProcess(f"crowd {number}") for number in range(3)))
    assert rig.core.stats().market.price == 0
    rig.check()


def test_a_page_is_paid_once_and_what_was_found_is_not():
    rig = Rig(num_pages=24)
    first = rig.context("a" * 40)
    rig.flush(first)
    rig.run()
    again = rig.context("a" * 40)
    rig.flush(again)
    rig.run()
    assert usage(rig, "p1").num_made == 10
    # It loses its pages, and computes them again.
    rig.flush(rig.context("b" * 88))
    rig.run()
    assert rig.num_computed(first) == 0
    made = usage(rig, "p1").num_made
    rig.generate(first, max_tokens=1)
    rig.run()
    assert usage(rig, "p1").num_made == made


def test_rents_are_paid_by_those_who_have_and_come_back_as_dividends():
    rig = Rig(num_pages=4000, max_batch_sequences=2)
    crowd(rig, 2, bid=CREDIT)
    crowd_of(rig, "waits", bid=CREDIT // 2)
    go(rig, 100)
    stats = rig.core.stats()
    assert stats.market.price == CREDIT // 2
    assert stats.market.rent > 0
    payer = usage(rig, "crowd 0")
    assert payer.rent > payer.dividends > 0
    assert usage(rig, "waits").dividends > 0
    assert usage(rig, "waits").state.startswith("waiting: batch (bids 0.5, the price is 0.5)")
    rig.check()


def crowd_of(rig: Rig, pid: str, *, bid: int | None) -> int:
    open_all(rig, pid)
    ctx = rig.context("abcd", pid=pid)
    rig.send(SetBid(ctx, bid))
    return rig.generate(ctx, ignore_eos=True)


def test_who_has_no_credits_says_so_and_still_gets_on():
    rig = Rig(num_pages=4000, max_batch_sequences=1, scheduling=SchedulingSection(max_wait_steps=5))
    open_all(rig, "poor", endowment=0)
    crowd(rig, 2)
    op = rig.generate(rig.context("poor", pid="poor"), max_tokens=40, ignore_eos=True)
    go(rig, 60)
    assert usage(rig, "poor").balance < 0
    states = set()
    for _ in range(10):
        go(rig, 1)
        states.add(usage(rig, "poor").state)
    assert "waiting: credits (bids 0, the price is 0.01)" in states
    steps_until(rig, op)
    rig.check()


def test_who_waits_for_pages_without_credits_says_so():
    rig = Rig(num_pages=20, scheduling=SchedulingSection(max_wait_steps=500))
    open_all(rig, "rich")
    open_all(rig, "poor", endowment=0)
    rig.generate(rig.context("r" * 40, pid="rich"), ignore_eos=True)
    go(rig, 3)
    rig.generate(rig.context("p" * 40, pid="poor"), ignore_eos=True)
    go(rig, 2)
    assert usage(rig, "poor").state == "waiting: pages (10 needed, 9 free, rich has 11, no credits)"


def test_who_waits_hears_of_the_others_that_have_pages_not_of_itself():
    rig = Rig(num_pages=20, scheduling=SchedulingSection(max_wait_steps=500))
    open_all(rig, "rich", "waits")
    kept, wanted = rig.context("w" * 40, pid="waits"), rig.context("v" * 40, pid="waits")
    rig.send(SetBid(kept, CREDIT), SetBid(wanted, CREDIT // 10))
    rig.flush(kept)
    go(rig, 2)
    rig.generate(rig.context("r" * 20, pid="rich"), ignore_eos=True)
    go(rig, 2)
    rig.flush(wanted)
    go(rig, 2)
    assert usage(rig, "waits").num_pages == 10
    assert usage(rig, "waits").state == "waiting: pages (10 needed, 4 free, rich has 6)"


def test_who_is_idle_parked_away_or_paused_bids_nothing_unless_it_says_so():
    rig = Rig(max_batch_sequences=1)
    claims = rig.core._scheduler.claims
    ctx = rig.context("abcd")
    context = rig.core._hosts["host-1"].contexts[ctx]

    def bid() -> int:
        claims.step += 1
        return claims.bid_of(context)

    assert bid() == 0  # idle
    op = rig.generate(ctx, sampler=RANDOM, ignore_eos=True)
    assert bid() > 0
    rig.run(takes=False)  # until it has run ahead as far as it may
    assert bid() == 0
    rig.take_all()
    assert bid() > 0
    rig.send(PauseProcess("p1"))
    assert bid() == 0
    rig.stop(op)
    kept = rig.context("efgh")
    context = rig.core._hosts["host-1"].contexts[kept]
    rig.send(SetBid(kept, 3))
    assert bid() == 0  # paused
    open_all(rig, "p2")
    kept = rig.context("efgh", pid="p2")
    context = rig.core._hosts["host-1"].contexts[kept]
    rig.send(SetBid(kept, 4))
    assert bid() == 4
    rig.send(SetAway(kept, True))
    assert bid() == 0
    rig.generate(kept, max_tokens=1)
    assert bid() == 4
    rig.send(SetProcessBid("p2", 8))
    assert bid() == 8


def test_rent_falls_due_until_a_process_leaves():
    rig = Rig(num_pages=20)
    open_all(rig, "holder", "waiter", "runner")
    held = rig.context("h" * 40, pid="holder")
    rig.send(SetBid(held, CREDIT))
    rig.flush(held)
    rig.run()
    (told,) = rig.charged
    rig.generate(rig.context("r", pid="runner"), ignore_eos=True)
    go(rig, 2)
    wanted = rig.context("w" * 48, pid="waiter")
    rig.send(SetBid(wanted, CREDIT // 10))
    rig.flush(wanted)
    go(rig, 12)
    claims = rig.core._scheduler.claims
    while not claims.policy._num_steps:
        go(rig, 1)
    before = claims.ledger.account("holder")
    assert told.spent == 10 * CREDIT < before.spent, "it has paid since, and its host has not heard of it"
    rig.charged.clear()
    rig.send(CloseProcess("holder"))
    rig.hear()
    (final,) = rig.charged
    assert (final.pid, final.endowment, final.is_final) == ("holder", 1000 * CREDIT, True)
    assert final.spent > before.spent, "with what it owed"
    rig.check()


def test_credits_that_do_not_add_up_are_found_and_counted():
    rig = Rig()
    rig.send(Endow("p1", 5 * CREDIT))
    rig.check()
    rig.core._scheduler.claims.ledger.balances[0] += 1
    assert rig.core.check_integrity()
    assert rig.core.stats().num_violations > 0


@pytest.mark.parametrize("policy", ["market", "fcfs", "priority"])
def test_the_policy_is_what_the_configuration_names(policy: str):
    rig = Rig(num_pages=4000, max_batch_sequences=1, scheduling=SchedulingSection(policy=policy))  # type: ignore[arg-type]
    rig.send(OpenProcess("low", "test"), OpenProcess("high", "test", priority=5))
    ops: Sequence[int] = [
        rig.generate(rig.context(pid, pid=pid), max_tokens=30, ignore_eos=True) for pid in ("low", "high")
    ]
    high = steps_until(rig, ops[1])
    assert rig.core.stats().market.policy == policy
    assert (high <= 32) == (policy == "priority")


def test_programs_that_need_nearly_all_pages_take_turns_and_compute_little_twice():
    """Three that grow beside one that forgets, which bid the same, on pages for one of them: no two fit together."""
    max_wait = 60
    rig = Rig(num_pages=24, num_host_pages=40, scheduling=SchedulingSection(max_wait_steps=max_wait))
    pids = ["forgets", *(f"grows {number}" for number in range(3))]
    open_all(rig, *pids)
    contexts = [rig.context(str(number) * 52, pid=pid) for number, pid in enumerate(pids)]
    rig.generate(contexts[0], max_tokens=10_000, window=64, ignore_eos=True)
    ops = [rig.generate(ctx, max_tokens=40, ignore_eos=True) for ctx in contexts[1:]]
    processes = [rig.core._hosts["host-1"].processes[pid] for pid in pids]
    ran, ran_at, longest = [0] * 4, [0] * 4, 0
    while not all(is_over(rig, op) for op in ops):
        go(rig, 1)
        for number, process in enumerate(processes):
            if process.num_batch_tokens > ran[number] or (number and is_over(rig, ops[number - 1])):
                ran[number], ran_at[number] = process.num_batch_tokens, rig.core.num_steps
            longest = max(longest, rig.core.num_steps - ran_at[number])
    num_useful = sum(52 + len(heard.ids) for heard in rig.heard.values())
    num_run = sum(length for step in rig.driver.steps for _, length in step)
    assert rig.core.stats().num_preemptions > 3
    # `market.policy` states the bound: a turn for one claim of each of four processes, whose prompts take two steps.
    assert longest <= max_wait + 4 * (TURN_STEPS + 2)
    assert num_run <= 1.5 * num_useful
    rig.check()
