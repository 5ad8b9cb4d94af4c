"""Steps that cannot hold all are shared between programs, however many contexts each of them has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pie_engine.config import SchedulingSection
from pie_engine.driver.fake_script import FakeScript
from pie_engine.market.fairness import BURST_TOKENS
from pie_engine.protocol.to_core import CreateContext, OpenProcess
from tests.thoroughness import count
from tests.unit.core_rig import Rig


def open_others(rig: Rig, *pids: str) -> None:
    rig.send(*(OpenProcess(pid, "test") for pid in pids))


def go(rig: Rig, num_steps: int) -> None:
    for _ in range(num_steps):
        rig.step(after_s=0.1)
        rig.take_all()


def tokens_of(rig: Rig, ops: Sequence[int]) -> int:
    return sum(len(rig.heard[op].ids) for op in ops if op in rig.heard)


@pytest.mark.parametrize(("num_rows", "num_singles"), [(2, 1), (4, 7)])
def test_a_program_with_many_forks_gets_as_much_as_one_with_a_single_context(num_rows: int, num_singles: int):
    rig = Rig(num_pages=3000, max_batch_sequences=num_rows, max_batch_tokens=512)
    singles = [f"single {number}" for number in range(num_singles)]
    open_others(rig, *singles)
    ctx = rig.context("many")
    rig.flush(ctx)
    rig.run()
    forks = [rig.generate(rig.fork(ctx, 4), ignore_eos=True, chunk_ms=0) for _ in range(count(200, 1000))]
    ops = [rig.generate(rig.context("one", pid=pid), ignore_eos=True, chunk_ms=0) for pid in singles]
    go(rig, 20)  # prompts
    before = {op: tokens_of(rig, [op]) for op in ops}
    many = tokens_of(rig, forks)
    go(rig, 200)
    fair = 200 * min(num_rows / (num_singles + 1), 1)
    for op in ops:
        assert tokens_of(rig, [op]) - before[op] == pytest.approx(fair, rel=0.05)
    assert tokens_of(rig, forks) - many == pytest.approx(200 * num_rows - fair * num_singles, rel=0.05)


def test_a_program_with_many_prompts_does_not_keep_anothers_prompt_waiting():
    rig = Rig(num_pages=3000, max_batch_tokens=50)
    open_others(rig, "p2")
    flood = [rig.flush(rig.context(f"{number:05} " * 10)) for number in range(100)]
    go(rig, 3)
    op = rig.flush(rig.context("y" * 100, pid="p2"))
    go(rig, 4)
    assert rig.heard[op].is_flushed
    rig.run(max_steps=300)
    assert all(rig.heard[each].is_flushed for each in flood)


def test_prompts_of_equal_programs_run_one_after_the_other():
    rig = Rig(num_pages=3000, max_batch_tokens=50)
    open_others(rig, "p2", "p3")
    ops = [rig.flush(rig.context(pid * 50, pid=pid)) for pid in ("p1", "p2", "p3")]
    go(rig, 4)
    assert [op in rig.heard for op in ops] == [True, True, False]


def test_a_very_long_prompt_lets_short_ones_pass():
    rig = Rig(script=FakeScript(max_context_tokens=8192), num_pages=3000, max_batch_tokens=512)
    open_others(rig, "p2")
    long = rig.flush(rig.context("x" * 6000))
    go(rig, 1)
    short = rig.flush(rig.context("y" * 40, pid="p2"))
    go(rig, BURST_TOKENS // 512 + 1)
    assert rig.heard[short].is_flushed
    assert long not in rig.heard


def test_where_there_are_no_pages_for_all_the_oldest_is_not_overtaken():
    rig = Rig(num_pages=40, max_batch_tokens=50, scheduling=SchedulingSection(policy="fcfs"))
    open_others(rig, "p2", "p3")
    first = rig.flush(rig.context("x" * 150))
    rest = [rig.flush(rig.context(f"{number}" * 60, pid=f"p{number % 2 + 2}")) for number in range(8)]
    go(rig, 3)
    assert rig.heard[first].is_flushed
    rig.run()
    assert all(rig.heard[op].is_flushed for op in rest)


def test_contexts_of_a_closed_program_leave_the_line():
    rig = Rig(max_batch_sequences=1)
    open_others(rig, "p2")
    kept = rig.generate(rig.context("a"), max_tokens=20)
    ctx = rig.new_id()
    rig.send(CreateContext(ctx, "p2", 1))
    go(rig, 3)
    assert kept in rig.heard
    rig.run()
    rig.check()
