"""Beam searches on the fake driver: what they find, how they share pages, and every way in which they end.

That they find what Transformers finds is in tests/integration/test_beams.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from pie_engine.core.beams import Reply, Selection, num_offers
from pie_engine.driver.fake_script import FakeScript, Fault
from pie_engine.protocol.plan import MAX_BEAMS, BeamPlan, Grammar, Hypothesis, Usage
from pie_engine.protocol.sampling import TopToken
from pie_engine.protocol.to_core import CloseProcess, Release, Search
from tests.unit.core_rig import HOST, RANDOM, Rig
from tests.unit.test_core_grammar import run as run_all


def search(rig: Rig, ctx: int, num_beams: int = 3, **fields: Any) -> int:
    op = rig.new_id()
    rig.send(Search(op, ctx, BeamPlan(num_beams, **{"max_tokens": 8, "num_returned": num_beams} | fields)))
    return op


def found(rig: Rig, op: int) -> list[Hypothesis]:
    assert rig.heard[op].error is None, rig.heard[op].error
    assert rig.heard[op].num_answers == 1
    hypotheses = rig.heard[op].searched
    assert hypotheses is not None
    return hypotheses


def searched(prompt: str = "abcdef", num_beams: int = 3, *, rig: Rig | None = None, **fields: Any) -> list[Hypothesis]:
    rig = rig or Rig()
    op = search(rig, rig.context(prompt), num_beams, **fields)
    run_all(rig)
    return found(rig, op)


def num_contexts(rig: Rig) -> int:
    return len(rig.core._scheduler.contexts)


# The selection.


def top(**logprobs: float) -> list[TopToken]:
    return [TopToken(ord(token), value) for token, value in sorted(logprobs.items(), key=lambda each: -each[1])]


def ends_with(*tokens: str) -> Any:
    return lambda offer: Reply([offer.token], "stop") if chr(offer.token) in tokens else None


def test_the_best_offers_of_all_beams_go_on_and_only_the_first_can_end():
    selection = Selection(2, num_kept=num_offers(2, 1))
    going = selection.advance([top(a=-1.0, b=-2.0, c=-3.0, x=-4.0)], ends_with("x"))
    assert [(offer.beam, chr(offer.token), offer.total) for offer in going] == [(0, "a", -1.0), (0, "b", -2.0)]
    assert selection.found == [], "x was the fourth: no better than what goes on"
    going = selection.advance([top(x=-0.1, d=-5.0), top(e=-0.5, f=-9.0)], ends_with("x"))
    assert [(offer.beam, chr(offer.token)) for offer in going] == [(1, "e"), (0, "d")]
    assert [each.score for each in selection.found] == [-1.1 / 2]


@pytest.mark.parametrize(
    ("early", "penalty", "is_done"),
    [("yes", 1.0, True), ("no", 1.0, False), ("never", 1.0, False), ("no", 0.0, True), ("never", 0.0, True)],
)
def test_when_a_search_with_enough_hypotheses_ends(early: Any, penalty: float, is_done: bool):
    """A beam of -2.5 after two tokens, beside replies of -2.0 after one and -2.3 after two."""
    selection = Selection(2, num_kept=4, length_penalty=penalty, early_stopping=early, max_length=10)
    selection.advance([top(x=-2.0, a=-2.1, b=-3.0)], ends_with("x"))
    assert not selection.is_done
    selection.advance([top(x=-0.2, c=-0.4), top(d=-1.0)], ends_with("x"))
    assert len(selection.found) == 2
    assert selection.is_done == is_done


def test_never_goes_by_the_longest_reply_that_there_could_be():
    for early, is_done in (("no", True), ("never", False)):
        selection = Selection(1, num_kept=2, early_stopping=early, max_length=10)  # type: ignore[arg-type]
        selection.advance([top(x=-1.0, a=-3.0)], ends_with("x"))
        assert selection.is_done == is_done, "-3 now; -3 over 10 tokens if nothing else were lost"


def test_what_is_impossible_is_not_offered():
    selection = Selection(3, num_kept=6)
    assert len(selection.advance([top(a=-1.0, b=float("-inf"))], ends_with())) == 1
    assert not selection.is_done
    assert selection.advance([[]], ends_with()) == []
    assert selection.is_done


# In the core.


def test_the_best_reply_is_no_worse_than_the_greedy_one_and_scores_are_those_of_the_tokens():
    rig = Rig()
    greedy = rig.generate(rig.context("abcdef"), max_tokens=8, logprobs=True)
    op = search(rig, rig.context("abcdef"), 4)
    rig.run()
    hypotheses = found(rig, op)
    logprobs = [each for chunk in rig.heard[greedy].chunks for each in chunk.logprobs]
    assert hypotheses[0].score >= sum(logprobs) / 8 - 1e-9
    assert [each.score for each in hypotheses] == sorted((each.score for each in hypotheses), reverse=True)
    for each in hypotheses:
        assert each.score == pytest.approx(logprob_of(rig, each.ids) / 8)
        assert each.text == rig.tokenizer.decode(each.ids)
    assert len({tuple(each.ids) for each in hypotheses}) == 4


def logprob_of(rig: Rig, ids: list[int]) -> float:
    """Token by token, in passes of its own."""
    ctx, total = rig.context("abcdef"), 0.0
    for token in ids:
        op = rig.forward(ctx, top_k=20)
        rig.run()
        forwarded = rig.heard[op].forwarded
        assert forwarded is not None
        total += next(entry.logprob for entry in forwarded.probed.top if entry.token == token)
        rig.run()
        rig.forward(ctx, [token])
        rig.run()
    return total


def test_all_beams_run_in_one_batch_and_the_prompt_once():
    rig = Rig()
    op = search(rig, rig.context("abcdefghij"), 4, max_tokens=6)
    rig.run()
    assert rig.driver.steps == [[(0, 10)], *[[(10 + at, 1)] * 4 for at in range(5)]]
    assert rig.heard[op].usage == Usage(10, 0, 4 * 5)


def test_beams_share_the_pages_of_what_they_have_in_common_and_leave_nothing():
    rig = Rig()
    ctx = rig.context("x" * 40)
    op = search(rig, ctx, 4, max_tokens=20)
    rig.step(12)
    process = rig.core.stats().processes[0]
    assert process.num_pages <= 10 + 4 * 5, "the prompt's ten are held once"
    rig.run()
    found(rig, op)
    assert num_contexts(rig) == 1
    assert rig.text(ctx) == "x" * 40
    assert rig.core.stats().processes[0].num_pages == 10


def test_the_context_goes_on_as_if_there_had_been_no_search():
    plain, rig = Rig(), Rig()
    replies = []
    for each in (plain, rig):
        ctx = each.context("abcd")
        if each is rig:
            search(rig, ctx)
        child = each.fork(ctx, 4)
        ops = [each.generate(one, sampler=RANDOM, max_tokens=12) for one in (ctx, child)]
        each.run()
        replies.append([each.heard[op].ids for op in ops])
    assert replies[0] == replies[1]


def test_searches_and_plans_side_by_side_do_not_change_one_another():
    alone = [searched("abcdef", 3), searched("uvw", 5)]
    rig = Rig()
    ops = [search(rig, rig.context("abcdef"), 3), search(rig, rig.context("uvw"), 5)]
    plan = rig.generate(rig.context("abcdef"), sampler=RANDOM, max_tokens=30)
    rig.run()
    assert [found(rig, op) for op in ops] == alone
    other = Rig()
    same = other.generate(other.context("abcdef"), sampler=RANDOM, max_tokens=30)
    other.run()
    assert rig.heard[plan].ids == other.heard[same].ids


@pytest.mark.parametrize("limits", [{"max_batch_sequences": 2}, {"max_batch_tokens": 3}, {"prefix_cache": "off"}])
def test_a_batch_that_does_not_hold_all_beams_changes_nothing(limits: dict[str, Any]):
    assert searched(num_beams=5, max_tokens=12, rig=Rig(**limits)) == searched(num_beams=5, max_tokens=12)


@pytest.mark.parametrize("num_pages", [6, 8, 11])
def test_out_of_pages_it_waits_and_finds_the_same(num_pages: int):
    rig = Rig(num_pages=num_pages)
    ops = [search(rig, rig.context("abcdefgh"), 4, max_tokens=12) for _ in range(2)]
    plan = rig.generate(rig.context("uvw"), max_tokens=12)
    rig.run(max_steps=5000)
    expected = searched("abcdefgh", 4, max_tokens=12)
    assert [found(rig, op) for op in ops] == [expected, expected]
    assert rig.heard[plan].finish == "length"
    assert num_contexts(rig) == 3


def test_beams_that_take_all_pages_each_end_with_what_they_have():
    rig = Rig(num_pages=3)
    op = search(rig, rig.context("abcdefgh"), 2, max_tokens=20)
    rig.run()
    assert rig.heard[op].num_answers == 1
    assert [(each.finish, len(each.ids)) for each in found(rig, op)] == [("pages", 5)] * 2
    assert num_contexts(rig) == 1


def test_one_beam_is_the_greedy_reply():
    rig = Rig()
    op = rig.generate(rig.context("abcdef"), max_tokens=8)
    rig.run()
    assert searched(num_beams=1)[0].ids == rig.heard[op].ids


# Ends.


def test_stop_tokens_end_a_hypothesis_and_are_not_part_of_it():
    rig = Rig(script=FakeScript(mean_length=6))
    hypotheses = searched(rig=rig, max_tokens=40)
    assert {each.finish for each in hypotheses} == {"stop"}
    end = rig.tokenizer.eos_ids[0]
    assert all(end not in each.ids for each in hypotheses)
    longer = searched(rig=Rig(script=FakeScript(mean_length=6)), max_tokens=40, ignore_eos=True)
    assert {each.finish for each in longer} == {"length"}


def test_a_stop_text_ends_a_hypothesis_before_it():
    free = searched(num_beams=3, max_tokens=12)
    stop = free[0].text[4:6]
    hypotheses = searched(num_beams=3, max_tokens=12, stop=[stop])
    ended = [each for each in hypotheses if each.finish == "stop"]
    assert ended
    assert all(stop not in each.text for each in hypotheses)
    for each in ended:
        assert each.text == Rig().tokenizer.decode(each.ids), "one byte a token: the text ends between two tokens"


def test_the_end_of_the_context_ends_all_beams():
    rig = Rig(script=FakeScript(max_context_tokens=12))
    assert {(len(each.ids), each.finish) for each in searched(rig=rig, max_tokens=None)} == {(6, "context")}
    rig = Rig(script=FakeScript(max_context_tokens=6))
    op = search(rig, rig.context("abcdef"))
    rig.run()
    assert rig.heard[op].error.code == "context_too_long"  # type: ignore[union-attr]


def test_a_deadline_answers_what_there_is():
    rig = Rig()
    ctx = rig.context("abcdef")
    op = search(rig, ctx, 3, max_tokens=100, timeout_s=1.05)
    later = rig.generate(ctx, max_tokens=2)
    rig.run()
    hypotheses = found(rig, op)
    assert [(len(each.ids), each.finish) for each in hypotheses] == [(10, "deadline")] * 3
    assert hypotheses == sorted(hypotheses, key=lambda each: -each.score)
    assert rig.heard[later].finish == "length", "what waited behind it begins"
    assert num_contexts(rig) == 1


def test_a_deadline_before_the_first_step_answers_nothing():
    rig = Rig()
    op = search(rig, rig.context("abcdef"), timeout_s=0.0)
    rig.run()
    assert (found(rig, op), rig.heard[op].usage) == ([], Usage(6, 0, 0))


@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_called_off_it_leaves_nothing(num_steps: int):
    rig = Rig()
    ctx = rig.context("abcdef")
    op = search(rig, ctx, 3, max_tokens=50)
    rig.step(num_steps)
    rig.stop(op)
    later = rig.generate(ctx, max_tokens=3)
    rig.run()
    assert rig.heard[op].error.code == "cancelled"  # type: ignore[union-attr]
    assert rig.heard[op].num_answers == 1
    assert rig.heard[later].finish == "length"
    assert num_contexts(rig) == 1


@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_the_end_of_its_process_or_context_ends_it(num_steps: int):
    for is_process in (True, False):
        rig = Rig()
        ctx = rig.context("abcdef")
        op = search(rig, ctx, 3, max_tokens=50)
        rig.step(num_steps)
        rig.send(CloseProcess("p1") if is_process else Release(ctx))
        rig.run()
        assert num_contexts(rig) == 0
        assert rig.core.pool.num_free == 256
        assert not rig.core._hosts[HOST].operations
        assert (op in rig.heard) != is_process


def test_a_beam_that_the_device_refuses_fails_the_search_and_nobody_else():
    rig = Rig(script=FakeScript(faults=(Fault(3, 1),)))
    op = search(rig, rig.context("abcdef"), 3)
    rig.step(5)
    plan = rig.generate(rig.context("abc"), max_tokens=4)
    rig.run()
    assert rig.heard[op].num_answers == 1
    assert "scripted failure" in rig.heard[op].error.message  # type: ignore[union-attr]
    assert rig.heard[plan].finish == "length"
    assert num_contexts(rig) == 2


@pytest.mark.parametrize(
    ("num_beams", "fields", "says"),
    [
        (0, {}, f"`num_beams` has to be from 1 to {MAX_BEAMS}; got 0"),
        (10**9, {}, f"`num_beams` has to be from 1 to {MAX_BEAMS}; got 1000000000"),
        (3, {"num_returned": 4}, "`num_return_sequences` has to be from 1 to `num_beams` = 3; got 4"),
        (3, {"num_returned": 0}, "`num_return_sequences` has to be from 1 to `num_beams` = 3; got 0"),
        (3, {"max_tokens": 0}, "`max_tokens` of a beam search has to be 1 or more; got 0"),
        (3, {"length_penalty": float("nan")}, "`length_penalty` has to be from -100 to 100; got nan"),
        (3, {"timeout_s": -1.0}, "`timeout` has to be 0 or more; got -1.0"),
        (12, {}, "`num_beams` = 12 needs the 24 likeliest tokens of each beam; test-model gives 20"),
    ],
)
def test_what_cannot_be_is_refused(num_beams: int, fields: dict[str, Any], says: str):
    rig = Rig()
    op = search(rig, rig.context("abc"), num_beams, **fields)
    rig.run()
    error = rig.heard[op].error
    assert error is not None
    assert (error.code, error.message) == ("invalid_input", says)
    assert rig.driver.steps == []


# Under a grammar.


def test_hypotheses_follow_a_grammar():
    hypotheses = searched(num_beams=4, max_tokens=20, grammar=Grammar("regex", "(yes|no|perhaps)[.!]"))
    assert sorted(each.text for each in hypotheses) == sorted({each.text for each in hypotheses})
    assert all(each.finish == "stop" for each in hypotheses)
    assert {each.text[:-1] for each in hypotheses} <= {"yes", "no", "perhaps"}
    assert all(each.text[-1] in ".!" for each in hypotheses)


def test_a_grammar_with_fewer_replies_than_beams_gives_all_of_them():
    hypotheses = searched(num_beams=4, max_tokens=20, grammar=Grammar("choice", '["ab", "cd", "ce"]'))
    assert sorted(each.text for each in hypotheses) == ["ab", "cd", "ce"]


def test_a_grammar_that_leads_nowhere_or_is_wrong_fails_the_search():
    for text, says in (("(", "grammar"), (r"a\xffb", "")):
        rig = Rig()
        op = search(rig, rig.context("abc"), grammar=Grammar("regex", text))
        run_all(rig)
        if says:
            assert rig.heard[op].error.code == "invalid_input"  # type: ignore[union-attr]
        assert num_contexts(rig) == 1
