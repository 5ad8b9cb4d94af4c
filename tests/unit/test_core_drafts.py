"""Drafts change how fast a reply comes and nothing else: what is guessed, checked, counted and left alone."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_engine.core.drafting import Drafter, DraftLength, PromptLookup, can_draft
from pie_engine.driver.fake_script import FakeScript
from pie_engine.protocol.plan import RUN_AHEAD_TOKENS, Speculation, Usage
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Delivered, Draft
from tests import thoroughness
from tests.unit.core_rig import RANDOM, Rig

STORY = "the fox ran and the fox hid. "
LOOKUP = Speculation("lookup", 8)


def tokens_of(rig: Rig, text: str) -> list[int]:
    return rig.tokenizer.encode(text)


# The reply is the same.


@settings(max_examples=thoroughness.count(24, 120), deadline=None)
@given(
    text=st.text("ab ", min_size=1, max_size=60),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([0.0, 0.3, 1.0]),
    sizes=st.lists(st.integers(0, 6), max_size=12),
    stop=st.sampled_from([[], ["ab"], [" "]]),
)
def test_any_drafts_give_the_same_tokens_logprobs_and_end(
    text: str, seed: int, temperature: float, sizes: list[int], stop: list[str]
) -> None:
    """Guesses from the reply itself, in part right and in part wrong, handed in at any time."""
    plan = {"sampler": Sampler(temperature=temperature, top_p=0.9), "max_tokens": 40, "logprobs": True, "stop": stop}
    plain = Rig(script=FakeScript(mean_length=30))
    expected = plain.heard[_generated(plain, text, seed, plan, ())]
    rig = Rig(script=FakeScript(mean_length=30))
    heard = rig.heard[_generated(rig, text, seed, plan, [(size, expected.ids) for size in sizes])]
    assert (heard.ids, heard.text, heard.finish) == (expected.ids, expected.text, expected.finish)
    assert _logprobs(heard) == _logprobs(expected)


def _generated(rig: Rig, text: str, seed: int, plan: dict[str, object], guesses: object) -> int:
    choice = random.Random(seed)
    op = rig.generate(rig.context(text, seed=seed), speculation=LOOKUP, **plan)
    for size, ids in guesses:  # type: ignore[attr-defined]
        at = len(rig.heard[op].ids) if op in rig.heard else 0
        guess = [token if choice.random() < 0.8 else 7 for token in ids[at : at + size]]
        rig.send(Draft(op, 0, at, guess))
        rig.step(after_s=0.1)
        rig.take_all()
    rig.run()
    return op


def _logprobs(heard: object) -> list[float]:
    return [logprob for chunk in heard.chunks for logprob in chunk.logprobs]  # type: ignore[attr-defined]


def test_a_right_guess_saves_passes_and_is_counted():
    reply = STORY * 3
    rig = Rig(reply=reply)
    op = rig.generate(rig.context(STORY * 2), speculation=LOOKUP)
    rig.run()
    heard = rig.heard[op]
    assert heard.text == reply
    assert heard.usage is not None
    assert heard.usage.completion_tokens == len(reply)
    assert heard.usage.accepted_tokens > len(reply) / 2
    assert heard.usage.drafted_tokens >= heard.usage.accepted_tokens
    assert len(rig.driver.steps) < len(reply) / 2
    assert len(rig.driver.steps) + heard.usage.accepted_tokens == len(reply) + 1, "one a pass, and the right guesses"
    process = rig.core.stats().processes[0]
    assert (process.num_drafted, process.num_accepted) == (heard.usage.drafted_tokens, heard.usage.accepted_tokens)


def test_without_speculation_nothing_is_guessed():
    rig = Rig(reply=STORY * 3)
    op = rig.generate(rig.context(STORY * 2))
    rig.run()
    assert rig.heard[op].usage == Usage(len(STORY) * 2, 0, len(STORY) * 3, 0, 0)


def test_what_was_refused_leaves_no_trace_in_the_cache():
    """The fake reads its pages back: a refused token in one of them would change what follows, also in a fork."""
    plain, rig = Rig(), Rig()
    rigs = []
    for one, guess in ((plain, []), (rig, [5] * 6)):
        ctx = one.context("abcd")
        op = one.generate(ctx, sampler=RANDOM, max_tokens=30)
        for _ in range(20):
            one.send(Draft(op, 0, len(one.heard[op].ids) if op in one.heard else 0, guess))
            one.step(after_s=0.1)
        one.run()
        child = one.fork(ctx, 20)
        again = one.generate(child, max_tokens=10)
        one.run()
        rigs.append((one.heard[op].ids, one.heard[again].ids))
        assert one.num_computed(ctx) == 33
    assert rigs[0] == rigs[1]
    assert any(num_tokens > 1 for step in rig.driver.steps[1:] for _, num_tokens in step)


# Guesses of the program.


def test_a_guess_of_the_program_is_read_in_one_pass():
    rig = Rig(reply="abcdefghij")
    op = rig.generate(rig.context("x"))
    rig.send(Draft(op, 0, 0, tokens_of(rig, "abcdefgh")))
    rig.run()
    assert rig.driver.steps == [[(0, 9)], [(9, 1)], [(10, 1)]], "the prompt and 8 guesses, then a token each"
    assert rig.heard[op].text == "abcdefghij"
    assert rig.heard[op].usage == Usage(1, 0, 10, 8, 8)


def test_a_guess_may_come_late_or_be_wrong_from_some_token_on():
    rig = Rig(reply="abcdefghijklmnop")
    op = rig.generate(rig.context("x"))
    rig.step(4)
    rig.send(Draft(op, 0, 1, tokens_of(rig, "bcdefgXhi")))  # 3 of them are there already
    rig.step()
    assert rig.driver.steps[-1] == [(4, 7)], "6 of its 9 are left to be checked"
    rig.step()
    assert rig.driver.steps[-1] == [(8, 1)], "the rest of a wrong guess is given up"
    rig.run()
    assert rig.heard[op].text == "abcdefghijklmnop"
    assert rig.heard[op].usage == Usage(1, 0, 16, 6, 3)


@pytest.mark.parametrize("draft", [(1, 0, "abc"), (0, 5, "fgh"), (0, 0, "xyz")], ids=["epoch", "ahead", "wrong"])
def test_a_guess_that_does_not_fit_is_dropped(draft: tuple[int, int, str]):
    epoch, index, text = draft
    rig = Rig(reply="abcdef")
    op = rig.generate(rig.context("x"))
    rig.step(2)
    rig.send(Draft(op, epoch, index, tokens_of(rig, text)))
    rig.step()
    assert rig.driver.steps[-1] == [(2, 1)]
    rig.run()
    assert rig.heard[op].text == "abcdef"


def test_a_guess_outside_of_the_vocabulary_fails_the_plan():
    rig = Rig(reply="abcdef")
    op = rig.generate(rig.context("x"))
    rig.step()
    rig.send(Draft(op, 0, 0, [100_000]))
    rig.hear()
    assert rig.heard[op].error is not None
    assert rig.heard[op].error.code == "invalid_input"


def test_a_guess_for_a_plan_that_is_over_is_ignored():
    rig = Rig(reply="ab")
    op = rig.generate(rig.context("x"))
    rig.run()
    rig.send(Draft(op, 0, 2, [5]), Draft(999, 0, 0, [5]))
    rig.run()
    assert rig.heard[op].text == "ab"


def test_a_rewind_takes_the_guesses_back_too():
    rig = Rig(reply=STORY * 3)
    ctx = rig.context(STORY * 2)
    op = rig.generate(ctx, speculation=LOOKUP)
    rig.step(6, after_s=0.1)
    rig.steer(op, 3, tokens_of(rig, " fox ran"))
    rig.run()
    assert rig.heard[op].text.startswith("the fox ran")
    assert rig.tokens(ctx)[len(STORY) * 2 :] == rig.heard[op].ids


# Limits.


@pytest.mark.parametrize("max_tokens", [1, 2, 5, 17])
def test_guesses_end_at_max_tokens(max_tokens: int):
    rig = Rig(reply=STORY * 3)
    op = rig.generate(rig.context(STORY * 2), speculation=LOOKUP, max_tokens=max_tokens)
    rig.run()
    assert (rig.heard[op].text, rig.heard[op].finish) == ((STORY * 3)[:max_tokens], "length")


def test_guesses_end_at_the_end_of_the_context():
    rig = Rig(script=FakeScript(max_context_tokens=70))
    op = rig.generate(rig.context("ab " * 20), speculation=LOOKUP)
    rig.send(Draft(op, 0, 0, [5] * 32))
    rig.run()
    assert (rig.heard[op].finish, len(rig.heard[op].ids)) == ("context", 10)


def test_guesses_do_not_run_further_ahead_than_a_plan_may():
    rig = Rig(reply=STORY * 8)
    op = rig.generate(rig.context(STORY * 2), speculation=Speculation("lookup", 32))
    rig.run(takes=False)
    assert len(rig.heard[op].ids) == RUN_AHEAD_TOKENS
    rig.send(Delivered(op, 0, 10))
    rig.run(takes=False)
    assert len(rig.heard[op].ids) == RUN_AHEAD_TOKENS + 10


def test_guesses_take_spare_tokens_only_and_stop_nobody():
    rig = Rig(reply=STORY * 8, max_batch_tokens=10)
    guessing = rig.generate(rig.context(STORY * 2), speculation=Speculation("lookup", 32), max_tokens=60)
    others = [rig.generate(rig.context("x"), max_tokens=30) for _ in range(7)]
    rig.run()
    for step in rig.driver.steps:
        assert sum(num_tokens for _, num_tokens in step) <= 10
    assert all(len(rig.heard[op].ids) == 30 for op in others)
    assert rig.heard[guessing].usage is not None
    assert rig.heard[guessing].usage.accepted_tokens > 0


def test_a_full_batch_has_nothing_to_spare():
    rig = Rig(reply=STORY * 8, max_batch_tokens=4)
    ops = [rig.generate(rig.context(STORY), speculation=LOOKUP, max_tokens=20) for _ in range(4)]
    rig.run()
    running = [step for step in rig.driver.steps if len(step) == 4]
    assert running
    assert all(num_tokens == 1 for step in running for _, num_tokens in step)
    assert [rig.heard[op].text for op in ops] == [(STORY * 8)[:20]] * 4


def test_nobody_loses_a_page_to_a_guess():
    rig = Rig(reply=STORY * 8, num_pages=40)
    ctx = rig.context("y" * 60)
    rig.flush(ctx)
    rig.run()
    rig.generate(rig.context(STORY * 2), speculation=Speculation("lookup", 32), max_tokens=8)
    rig.run()
    assert rig.core.stats().num_preemptions == 0
    assert rig.num_computed(ctx) == 60, "an idle context keeps its pages"


@settings(max_examples=thoroughness.count(16, 80), deadline=None)
@given(
    num_pages=st.integers(24, 60),
    max_batch_tokens=st.integers(3, 24),
    seeds=st.lists(st.integers(0, 50), min_size=1, max_size=5),
)
def test_under_pressure_the_replies_are_those_of_a_quiet_machine(
    num_pages: int, max_batch_tokens: int, seeds: list[int]
) -> None:
    """Few pages, small batches, several plans that guess: everything arrives, and every page is accounted for."""
    rig = Rig(reply=STORY * 2, num_pages=num_pages, max_batch_tokens=max_batch_tokens)
    # The bar: no prompt is another one with the beginning of the reply, where the fake would go on with that reply.
    prompts = [(STORY * 2)[: seed + 4] + "|" for seed in seeds]
    ops = [
        rig.generate(rig.context(prompt, seed=seed), speculation=LOOKUP, max_tokens=40)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    rig.run(max_steps=4000)
    assert [rig.heard[op].text for op in ops] == [(STORY * 2)[:40]] * len(ops)


# Who may guess.


@pytest.mark.parametrize(
    ("sampler", "may"),
    [
        (Sampler(), True),
        (Sampler(temperature=0.7, top_k=4, top_p=0.5, min_p=0.1, typical_p=0.9, logit_bias={3: 1.0}), True),
        (Sampler(repetition_penalty=1.1), False),
        (Sampler(presence_penalty=0.5), False),
        (Sampler(dry_multiplier=0.8), False),
        (Sampler(temperature=1.0, mirostat_tau=3.0), False),
        (Sampler(temperature=1.0, xtc_probability=0.5), False),
    ],
)
def test_a_sampler_that_looks_back_is_not_guessed_for(sampler: Sampler, may: bool):
    assert can_draft(sampler) == may
    rig = Rig(reply=STORY * 2)
    op = rig.generate(rig.context(STORY * 2), sampler=sampler, speculation=LOOKUP, max_tokens=30)
    rig.run()
    assert rig.heard[op].usage is not None
    assert (rig.heard[op].usage.drafted_tokens > 0) == may


@pytest.mark.parametrize("longest", [0, 33])
def test_a_length_out_of_range_is_refused(longest: int):
    rig = Rig()
    op = rig.generate(rig.context("abc"), speculation=Speculation("lookup", longest))
    rig.run()
    assert rig.heard[op].error is not None
    assert "1 to 32 tokens" in rig.heard[op].error.message


# Parts.


class TestPromptLookup:
    def test_it_finds_what_followed_the_last_tokens(self):
        assert PromptLookup().guess([1, 2, 3, 4, 5, 9, 1, 2, 3], 3) == [4, 5, 9]
        assert PromptLookup().guess([7, 2, 3, 4, 9, 2, 3], 2) == [4, 9], "two tokens do as well"
        assert PromptLookup().guess([1, 2, 3, 4], 4) == []
        assert PromptLookup().guess([], 4) == PromptLookup().guess([1], 4) == []

    def test_the_last_place_counts_and_a_longer_run_before_a_shorter(self):
        assert PromptLookup().guess([1, 2, 5, 1, 2, 6, 1, 2], 1) == [6]
        assert PromptLookup().guess([9, 1, 2, 5, 1, 2, 6, 9, 1, 2], 1) == [5]

    def test_a_text_that_repeats_itself_goes_on_with_itself(self):
        assert PromptLookup().guess([1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]

    @settings(max_examples=thoroughness.count(40, 200), deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 8), st.lists(st.integers(0, 3), max_size=8)), max_size=10))
    def test_it_follows_a_text_that_grows_and_is_taken_back(self, changes: list[tuple[int, list[int]]]) -> None:
        """What it guesses always follows an earlier run of the last two tokens."""
        lookup, tokens = PromptLookup(), []
        for num_back, more in changes:
            del tokens[max(len(tokens) - num_back, 0) :]
            tokens += more
            guess = lookup.guess(tokens, 4)
            if guess:
                run = [*tokens[-2:], guess[0]]
                assert any(tokens[at : at + 3] == run for at in range(len(tokens) - 2))


class TestDraftLength:
    def test_it_grows_while_all_is_right_and_shrinks_to_what_was(self):
        length = DraftLength(32)
        assert length.at(0) == 4
        length.learn(4, 4, 5)
        assert length.at(5) == 8
        length.learn(8, 2, 8)
        assert length.at(8) == 3
        for _ in range(10):
            length.learn(length.at(0), length.at(0), 0)
        assert length.at(0) == 32

    def test_it_rests_when_little_is_right_and_longer_each_time(self):
        length = DraftLength(8)
        rests: list[int] = []
        for at in range(4000):
            if length.at(at):
                length.learn(length.at(at), 0, at + 1)
                rests.append(0)
            else:
                rests[-1] += 1
        waits = [rest for rest in rests if rest]
        assert waits[:5] == sorted(waits[:5])
        assert max(waits) == 128
        assert sum(1 for rest in rests) < 60, "few guesses in 4,000 tokens that never come true"

    def test_a_right_guess_ends_the_long_rests(self):
        length = DraftLength(8)
        at = 0
        while length.at(at):
            length.learn(length.at(at), 0, at)
        at = 8
        assert length.at(at) == 1
        length.learn(1, 1, at + 2)
        assert length.at(at + 2) == 2


def test_what_the_program_guesses_goes_before_the_lookup():
    drafter = Drafter("lookup", longest=8)
    tokens = [1, 2, 3, 4, 1, 2]
    assert drafter.guess(tokens, 4, 8)[:1] == [3]
    drafter.give(2, [9, 9])
    assert drafter.guess(tokens, 4, 8) == [9, 9]
    assert drafter.guess([*tokens, 9], 4, 8) == [9]
    assert drafter.guess([*tokens, 8], 4, 8) != [9]


def test_usage_crosses_as_six_numbers():
    assert msgspec.json.encode(Usage(1, 2, 3, 4, 5)) == b"[1,2,3,4,5,0,0]"
