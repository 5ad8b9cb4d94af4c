"""A second model that guesses: the reply stays what it was, and what the second one reads, writes and gives up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_engine.core.draft_model import check_same_tokens
from pie_engine.driver.fake_script import FakeScript, Fault, Reply
from pie_engine.errors import InvalidConfig
from pie_engine.protocol.plan import Grammar, Speculation
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Append, CloseProcess, Draft, Release, Stop, Truncate
from tests.unit.core_rig import PAGE_SIZE, RANDOM, Heard, RecordingDriver, Rig, byte_tokenizer
from tests.unit.test_core_grammar import grammar as grammar_of
from tests.unit.test_core_grammar import run as run_all
from tests.unit.test_core_grammar_property import schemas

MODEL = Speculation("model", 8)
SAME, OTHER = FakeScript(), FakeScript(mean_length=9)
"""Writes what the rig's own model writes; writes something else."""


def write(rig: Rig, prompt: str = "abcdef", **plan: Any) -> Heard:
    op = rig.generate(rig.context(prompt, seed=3), **{"max_tokens": 40} | plan)
    run_all(rig)
    assert rig.heard[op].error is None, rig.heard[op].error
    return rig.heard[op]


def told(heard: Heard) -> tuple[object, ...]:
    return heard.ids, heard.text, heard.finish, [each for chunk in heard.chunks for each in chunk.logprobs]


@pytest.mark.parametrize("draft", [SAME, OTHER, FakeScript(replies=(Reply("abcabc"),))], ids=["same", "other", "text"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_reply_is_the_same_whatever_is_guessed(draft: FakeScript, temperature: float):
    plan = {"sampler": Sampler(temperature=temperature), "logprobs": True}
    assert told(write(Rig(draft=draft), speculation=MODEL, **plan)) == told(write(Rig(), **plan))


def test_a_model_that_thinks_alike_saves_passes_drawn_or_not():
    for sampler in (Sampler(), RANDOM):
        rig = Rig(draft=SAME)
        heard = write(rig, speculation=MODEL, sampler=sampler)
        assert heard.usage is not None
        assert heard.usage.accepted_tokens == heard.usage.drafted_tokens > 25
        assert len(rig.driver.steps) < 12
        process = rig.core.stats().processes[0]
        assert (process.num_drafted, process.num_accepted) == (heard.usage.drafted_tokens, heard.usage.accepted_tokens)


def test_it_reads_the_prompt_once_and_then_what_is_new():
    rig = Rig(draft=SAME)
    write(rig, "x" * 20, speculation=MODEL, max_tokens=12)
    assert rig.draft_driver.steps[0] == [(0, 21)], "the prompt, and the token that came of it"
    assert rig.draft_driver.steps[1:4] == [[(21, 1)], [(22, 1)], [(23, 1)]]
    assert rig.draft_driver.steps[4] == [(24, 2)], "its last guess, which was right, and the token behind it"


def test_a_model_that_thinks_otherwise_is_left_alone_for_longer_and_longer():
    rig = Rig(draft=OTHER)
    heard = write(rig, speculation=MODEL, max_tokens=200)
    assert heard.usage is not None
    assert heard.usage.accepted_tokens < 5
    assert heard.usage.drafted_tokens < 60


def test_all_plans_are_written_for_in_one_batch():
    rig = Rig(draft=SAME)
    ops = [rig.generate(rig.context(f"prompt {i}"), max_tokens=20, speculation=MODEL) for i in range(5)]
    free = rig.generate(rig.context("abc"), max_tokens=20)
    rig.run()
    assert max(len(step) for step in rig.draft_driver.steps) == 5
    assert len([step for step in rig.draft_driver.steps if len(step) == 5]) > 5
    assert all(rig.heard[op].usage.accepted_tokens > 10 for op in ops)  # type: ignore[union-attr]
    assert rig.heard[free].usage.drafted_tokens == 0  # type: ignore[union-attr]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    actions=st.lists(st.sampled_from(["step", "rewind", "inject", "draft"]), max_size=14),
    is_random=st.booleans(),
    draft=st.sampled_from([SAME, OTHER]),
    num_draft_pages=st.sampled_from([4, 12, 256]),
)
def test_it_follows_a_plan_that_is_steered(
    actions: list[str], is_random: bool, draft: FakeScript, num_draft_pages: int
) -> None:
    replies = []
    for speculation in (None, MODEL):
        rig = Rig(draft=draft, num_draft_pages=num_draft_pages)
        sampler = RANDOM if is_random else Sampler()
        op = rig.generate(rig.context("abcdef"), sampler=sampler, max_tokens=60, chunk_ms=0, speculation=speculation)
        epoch, kept = 0, 0
        for action in actions:
            while len(rig.heard.get(op, Heard()).ids) < kept + 3 and not rig.core.is_idle:
                rig.step(after_s=0.1)
                rig.take_all()
            kept = min(kept + 3, 50)
            if action in ("rewind", "inject"):
                # To a place that both runs have come to: the guessing one runs ahead.
                epoch += 1
                back = kept - 2 * (action == "rewind")
                rig.steer(op, back, [] if action == "rewind" else [65, 66])
                kept = back + 2 * (action == "inject")
            elif action == "draft" and speculation:
                rig.send(Draft(op, epoch, len(rig.heard[op].ids), [65, 66, 67]))
        rig.run()
        replies.append((rig.heard[op].ids, rig.heard[op].finish))
        assert rig.draft_model is not None
        assert rig.draft_model.violations() == []
    assert replies[0] == replies[1]


@pytest.mark.parametrize("num_draft_pages", [1, 3, 8, 20])
def test_its_memory_is_bounded_and_what_does_not_fit_is_not_guessed(num_draft_pages: int):
    rig = Rig(draft=SAME, num_draft_pages=num_draft_pages)
    ops = [rig.generate(rig.context(f"{i}" * 8), max_tokens=30, speculation=MODEL) for i in range(4)]
    plain = Rig()
    same = [plain.generate(plain.context(f"{i}" * 8), max_tokens=30) for i in range(4)]
    rig.run()
    plain.run()
    assert [rig.heard[op].ids for op in ops] == [plain.heard[op].ids for op in same]
    assert any(rig.heard[op].usage.drafted_tokens for op in ops) == (num_draft_pages >= 3)  # type: ignore[union-attr]


def test_pages_go_back_when_a_plan_ends_and_the_next_one_finds_them():
    rig = Rig(draft=SAME)
    ctx = rig.context("x" * 41)
    for _ in range(2):
        rig.generate(ctx, max_tokens=8, speculation=MODEL)
        rig.run()
        rig.send(Append(ctx, [65]))
    assert rig.draft_model is not None
    assert [step for step in rig.draft_driver.steps if step[0][0] == 0] == [[(0, 42)]], "the prompt once"
    op = rig.generate(ctx, max_tokens=500, speculation=MODEL)
    rig.step(4)
    rig.send(CloseProcess("p1"))
    rig.draft_model.keep(rig.core._turns.plans)
    assert rig.draft_model.pool.num_free == 256
    assert rig.draft_model.violations() == []
    assert op not in rig.heard or rig.heard[op].finish is None


def test_a_long_prompt_is_read_in_chunks_beside_the_others():
    rig = Rig(draft=SAME, max_batch_tokens=16)
    long = rig.generate(rig.context("y" * 60), max_tokens=20, speculation=MODEL)
    short = rig.generate(rig.context("ab"), max_tokens=40, speculation=MODEL)
    rig.run()
    assert max(sum(num for _, num in step) for step in rig.draft_driver.steps) <= 16
    assert max(sum(num for _, num in step) for step in rig.driver.steps) <= 16
    for op in (long, short):
        assert rig.heard[op].usage.accepted_tokens > 0  # type: ignore[union-attr]


def test_a_context_longer_than_it_takes_is_not_guessed_for():
    rig = Rig(draft=FakeScript(max_context_tokens=20))
    heard = write(rig, speculation=MODEL)
    assert told(heard) == told(write(Rig()))
    assert max(start + num for step in rig.draft_driver.steps for start, num in step) <= 20


def test_a_failure_of_it_ends_the_guessing_and_nothing_else(caplog: pytest.LogCaptureFixture):
    rig = Rig(draft=FakeScript(faults=(Fault(6),)))
    heard = write(rig, speculation=MODEL)
    assert told(heard) == told(write(Rig()))
    assert "the draft model has failed" in caplog.text
    assert len(rig.draft_driver.steps) == 7
    assert rig.draft_model is not None
    assert rig.draft_model.pool.num_free == 256


def test_a_row_that_fails_costs_its_guess():
    heard = write(Rig(draft=FakeScript(faults=(Fault(0, 0), Fault(3, 0), Fault(7, 0)))), speculation=MODEL)
    assert told(heard) == told(write(Rig()))
    assert heard.usage is not None
    assert heard.usage.accepted_tokens > 10


@pytest.mark.parametrize("sampler", [Sampler(), RANDOM], ids=["greedy", "random"])
def test_under_a_grammar_it_guesses_what_the_grammar_allows(sampler: Sampler):
    grammar = Grammar("regex", "([0-9]|[a-f]){30}")
    rig = Rig(draft=SAME)
    heard = write(rig, speculation=MODEL, grammar=grammar, sampler=sampler)
    assert told(heard) == told(write(Rig(), grammar=grammar, sampler=sampler))
    assert heard.usage is not None
    assert heard.usage.accepted_tokens == heard.usage.drafted_tokens > 20


@settings(max_examples=15, deadline=None, derandomize=True)
@given(schema=schemas, draft=st.sampled_from([SAME, OTHER]), seed=st.integers(0, 99))
def test_no_grammar_changes_by_what_it_guesses(schema: Any, draft: FakeScript, seed: int) -> None:
    plan = {"sampler": RANDOM, "grammar": grammar_of("json-schema", schema), "seed": seed, "max_tokens": 50}
    assert told(write(Rig(draft=draft), speculation=MODEL, **plan)) == told(write(Rig(), **plan))


def test_a_failure_in_the_middle_of_a_guess_leaves_the_grammar_where_it_was():
    plan = {"grammar": Grammar("regex", "([0-9]|[a-f]){30}"), "sampler": RANDOM}
    rig = Rig(draft=FakeScript(faults=(Fault(2),)))
    assert told(write(rig, speculation=MODEL, **plan)) == told(write(Rig(), **plan))


@pytest.mark.parametrize("window", [4, 9, 40])
def test_a_window_over_the_context_changes_nothing_of_it(window: int):
    plan = {"sampler": RANDOM, "window": window, "sinks": 2, "max_tokens": 80}
    rig = Rig(draft=SAME)
    assert told(write(rig, "x" * 20, speculation=MODEL, **plan)) == told(write(Rig(), "x" * 20, **plan))
    assert rig.draft_model is not None
    assert rig.draft_model.violations() == []


def test_forks_and_what_is_cut_off_are_followed():
    """Each reply is written for on its own; what the forks have in common is read once."""
    replies = []
    for speculation in (None, MODEL):
        rig = Rig(draft=SAME)
        ctx = rig.context("x" * 41)
        write_on(rig, ctx, speculation)
        forks = [rig.fork(ctx, length) for length in (41, 44, 30)]
        ops = [rig.generate(fork, max_tokens=20, sampler=RANDOM, speculation=speculation) for fork in forks]
        rig.run()
        rig.send(Truncate(ctx, 35), Append(ctx, [65, 66]))
        ops.append(write_on(rig, ctx, speculation))
        replies.append([rig.heard[op].ids for op in ops])
        if speculation:
            starts = [start for step in rig.draft_driver.steps for start, _ in step]
            assert starts.count(0) == 1
            assert all(rig.heard[op].usage.accepted_tokens > 0 for op in ops)  # type: ignore[union-attr]
    assert replies[0] == replies[1]


def write_on(rig: Rig, ctx: int, speculation: Speculation | None) -> int:
    op = rig.generate(ctx, max_tokens=8, speculation=speculation)
    rig.run()
    return op


@pytest.mark.parametrize("num_steps", range(6))
def test_a_reply_that_is_called_off_leaves_nothing(num_steps: int):
    rig = Rig(draft=SAME)
    ctx = rig.context("abcdef")
    op = rig.generate(ctx, speculation=MODEL, max_tokens=500)
    rig.step(num_steps)
    rig.send(Stop(op, len(rig.heard[op].ids) if op in rig.heard else 0), Release(ctx))
    after = rig.generate(rig.context("z"), max_tokens=3)
    rig.run()
    assert rig.heard[after].finish == "length"
    assert rig.draft_model is not None
    assert rig.draft_model.pool.num_free == 256
    assert rig.draft_model.violations() == []


def test_what_it_can_never_hold_is_not_even_read():
    """A context that outgrows its pages costs it nothing from then on."""
    rig = Rig(draft=SAME, num_draft_pages=6)
    heard = write(rig, speculation=MODEL, max_tokens=120)
    assert told(heard) == told(write(Rig(), max_tokens=120))
    assert rig.draft_driver.steps
    assert max(start + num for step in rig.draft_driver.steps for start, num in step) <= 6 * PAGE_SIZE


def test_plans_that_do_not_ask_for_it_cost_it_nothing():
    rig = Rig(draft=SAME)
    write(rig)
    write(rig, speculation=Speculation("lookup", 8))
    assert rig.draft_driver.steps == []


def test_without_one_the_plan_is_refused():
    rig = Rig()
    op = rig.generate(rig.context("abc"), speculation=MODEL)
    rig.run()
    error = rig.heard[op].error
    assert error is not None
    assert (error.code, error.message) == ("unsupported", "`speculate` is `model`, and test-model has no draft model")


def test_it_needs_the_tokens_of_its_model():
    ours = byte_tokenizer()
    check_same_tokens("big", ours, "small", byte_tokenizer())
    with pytest.raises(
        InvalidConfig, match="small cannot be the draft model of big: its tokenizer has 258 tokens"
    ) as caught:
        check_same_tokens("big", ours, "small", byte_tokenizer([("a", "b")]))
    assert caught.value.hint.startswith(
        "a draft model needs the tokenizer of its model; most families have a small member"
    )
    one, other = byte_tokenizer([("a", "b")]), byte_tokenizer([("a", "c")])
    with pytest.raises(InvalidConfig, match="token 256 is 'ac' there and 'ab' here"):
        check_same_tokens("big", one, "small", other)


def test_its_pages_count_as_kv_of_the_core(monkeypatch: pytest.MonkeyPatch):
    rig = Rig(draft=SAME)
    monkeypatch.setattr(RecordingDriver, "kv_regions", property(lambda driver: [(id(driver), 8)]), raising=False)
    assert {(id(rig.driver), 8), (id(rig.draft_driver), 8)} <= set(rig.core.kv_regions)
