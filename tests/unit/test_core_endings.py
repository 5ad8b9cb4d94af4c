"""Every plan has exactly one last chunk, with a reason and with what it has used."""

from __future__ import annotations

import pytest

from pie_engine.driver.fake_script import FakeScript, Fault, Reply
from pie_engine.protocol.plan import RUN_AHEAD_TOKENS, Grammar, Plan, Speculation, Usage
from pie_engine.protocol.to_core import CloseProcess, Release
from tests.unit.core_rig import Rig

STORY = "the fox ran and the fox hid. "


def ended(rig: Rig, op: int) -> tuple[str | None, Usage | None]:
    heard = rig.heard[op]
    assert sum(chunk.finish is not None for chunk in heard.chunks) == 1
    assert heard.chunks[-1].finish is not None
    assert heard.error is None
    return heard.finish, heard.usage


@pytest.mark.parametrize(
    ("plan", "reason", "num_tokens"),
    [
        (Plan(), "stop", 10),
        (Plan(stop=["def"]), "stop", 3),
        (Plan(max_tokens=4), "length", 4),
        (Plan(max_tokens=0), "length", 0),
        (Plan(ignore_eos=True), "context", 28),
        (Plan(ignore_eos=True, max_tokens=28), "length", 28),
        (Plan(timeout_s=0.35), "deadline", 3),
        (Plan(timeout_s=0.0), "deadline", 0),
        (Plan(grammar=Grammar("choice", '["abc"]')), "stop", 3),
    ],
)
def test_the_ways_in_which_a_plan_ends_by_itself(plan: Plan, reason: str, num_tokens: int):
    rig = Rig(script=FakeScript(replies=(Reply("abcdefghij"),), max_context_tokens=32))
    op = rig.generate(rig.context("xxxx"), plan)
    while rig.core.is_compiling:
        rig.step()
    rig.run()
    finish, usage = ended(rig, op)
    assert (finish, usage) == (reason, Usage(4, 0, num_tokens))
    assert len(rig.heard[op].ids) == num_tokens


def test_stopping_answers_once_with_what_was_kept():
    rig = Rig()
    op = rig.generate(rig.context("abcd"))
    rig.step(5, after_s=0.1)
    rig.stop(op, 3)
    rig.run()
    assert ended(rig, op) == ("stopped", Usage(4, 0, 3))


def test_a_deadline_ends_a_plan_that_waits_for_its_program_and_hands_over_what_there_is():
    rig = Rig()
    op = rig.generate(rig.context("abcd"), timeout_s=30.0)
    for _ in range(RUN_AHEAD_TOKENS + 2):
        rig.step(after_s=0.1)
    assert rig.core.is_idle
    assert rig.core.next_due_at == pytest.approx(130.0)
    rig.now = 130.0
    rig.step()
    assert ended(rig, op) == ("deadline", Usage(4, 0, RUN_AHEAD_TOKENS))
    assert len(rig.heard[op].ids) == RUN_AHEAD_TOKENS
    assert rig.core.next_due_at is None


def test_a_deadline_ends_a_plan_that_has_not_begun():
    rig = Rig(max_batch_tokens=4)
    ctx = rig.context("abcd" * 10)
    flush = rig.flush(ctx)
    op = rig.generate(ctx, timeout_s=0.15)
    rig.step(2, after_s=0.1)
    assert ended(rig, op) == ("deadline", Usage(40, 0, 0))
    rig.run()
    assert rig.heard[flush].is_flushed
    assert rig.num_computed(ctx) == 40


def test_a_deadline_releases_text_that_was_held_back():
    rig = Rig(reply="ENtry")
    op = rig.generate(rig.context("x"), stop=["END"], timeout_s=0.25)
    rig.step(3, after_s=0.1)
    assert (rig.heard[op].text, ended(rig, op)[0]) == ("EN", "deadline")


def test_a_plan_steered_after_its_deadline_ends_again():
    rig = Rig()
    ctx = rig.context("abcd")
    op = rig.generate(ctx, timeout_s=0.35)
    rig.run()
    assert rig.heard[op].finish == "deadline"
    rig.steer(op, 1)
    rig.run()
    assert (rig.heard[op].finish, len(rig.heard[op].ids)) == ("deadline", 1)
    assert len(rig.tokens(ctx)) == 5


@pytest.mark.parametrize("timeout_s", [-1.0, float("nan")])
def test_a_wrong_timeout_is_named(timeout_s: float):
    rig = Rig()
    op = rig.generate(rig.context("abcd"), timeout_s=timeout_s)
    rig.run()
    assert rig.heard[op].error is not None
    assert "timeout_s must be 0 or more" in rig.heard[op].error.message


def test_a_failure_is_the_only_answer():
    rig = Rig(script=FakeScript(faults=(Fault(2, 0),)))
    op = rig.generate(rig.context("abcd"), timeout_s=5.0)
    rig.run()
    assert rig.heard[op].error is not None
    assert rig.heard[op].finish is None


def test_nobody_is_told_of_the_deadlines_of_those_that_are_gone():
    rig = Rig()
    ctx = rig.context("abcd")
    op = rig.generate(ctx, timeout_s=5.0)
    other = rig.generate(rig.context("abcd"), timeout_s=5.0)
    rig.step(3, after_s=0.1)
    rig.send(Release(ctx))
    rig.hear()
    assert rig.heard[op].error is not None
    rig.send(CloseProcess("p1"))
    rig.now += 10
    rig.step()
    assert rig.core.next_due_at is None
    assert rig.heard[other].finish is None


def test_usage_on_the_way_comes_with_the_first_chunk_and_where_guesses_change_it():
    rig = Rig(reply=STORY * 2)
    plain = rig.generate(rig.context(STORY))
    guessed = rig.generate(rig.context(STORY), speculation=Speculation())
    rig.run()
    first, *others = rig.heard[plain].chunks
    assert first.so_far == Usage(len(STORY), 0, 1)
    assert all(chunk.so_far is None for chunk in others)
    assert all(chunk.so_far is not None for chunk in rig.heard[guessed].chunks[:-1])


def test_a_process_is_told_what_all_its_plans_have_used():
    rig = Rig(reply="abcdef")
    ctx = rig.context("xxxx")
    for _ in range(2):
        rig.generate(ctx, max_tokens=3)
        rig.run()
    usage = rig.core.stats().processes[0]
    assert (usage.num_prompt, usage.num_cached, usage.num_tokens) == (4 + 7, 0 + 6, 6)
