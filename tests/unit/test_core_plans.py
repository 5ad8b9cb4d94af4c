"""Steering plans: run-ahead, chunks, stops, rewinds, injections, forks and random numbers."""

from __future__ import annotations

import pytest

from pie_engine.driver.fake_script import FakeScript
from pie_engine.protocol.plan import RUN_AHEAD_TOKENS, Usage
from pie_engine.protocol.to_core import Append, Delivered, Truncate
from tests.unit.core_rig import RANDOM, Rig


def generated(rig: Rig, ctx: int, num_prompt: int) -> list[int]:
    return rig.tokens(ctx)[num_prompt:]


# Run-ahead and chunks.


def test_the_first_token_goes_at_once_and_then_one_chunk_every_chunk_ms():
    rig = Rig()
    op = rig.generate(rig.context("abcd"), max_tokens=40, chunk_ms=20)
    rig.step(40, after_s=0.006)
    sizes = [len(chunk.ids) for chunk in rig.heard[op].chunks]
    assert sizes == [1, *[4] * 9, 3]
    assert rig.heard[op].finish == "length"


def test_a_plan_parks_at_64_undelivered_tokens_and_keeps_its_pages():
    rig = Rig()
    ctx = rig.context("abcd")
    op = rig.generate(ctx)
    rig.run(takes=False)
    assert len(rig.heard[op].ids) == RUN_AHEAD_TOKENS
    assert rig.core.is_idle
    assert rig.core.stats().processes[0].state == "waiting: consumer"
    assert rig.num_computed(ctx) == 4 + RUN_AHEAD_TOKENS - 1
    rig.send(Delivered(op, 0, 10))
    rig.run(takes=False)
    assert len(rig.heard[op].ids) == RUN_AHEAD_TOKENS + 10


def test_a_parked_plan_still_sends_its_last_chunk_when_its_time_comes():
    rig = Rig()
    op = rig.generate(rig.context("abcd"))
    rig.step(RUN_AHEAD_TOKENS)
    assert rig.core.is_idle
    assert len(rig.heard[op].ids) == 1
    assert rig.core.next_due_at == pytest.approx(rig.now + 0.02)
    num_steps = len(rig.driver.steps)
    rig.step(after_s=0.021)
    assert len(rig.heard[op].ids) == RUN_AHEAD_TOKENS
    assert rig.core.next_due_at is None
    assert len(rig.driver.steps) == num_steps


def test_a_delivery_of_an_older_epoch_or_of_more_than_was_sent_does_not_move_the_window():
    rig = Rig()
    op = rig.generate(rig.context("abcd"))
    rig.run(takes=False)
    rig.steer(op, 30)
    rig.run(takes=False)
    assert len(rig.heard[op].ids) == 30 + RUN_AHEAD_TOKENS
    rig.send(Delivered(op, 0, 64), Delivered(op, 7, 64))
    rig.run(takes=False)
    assert len(rig.heard[op].ids) == 30 + RUN_AHEAD_TOKENS
    rig.send(Delivered(op, 1, 10_000))
    rig.run(takes=False)
    assert len(rig.heard[op].ids) == 30 + 2 * RUN_AHEAD_TOKENS


def test_chunks_never_split_a_character():
    rig = Rig(reply="aé日🙂b")
    op = rig.generate(rig.context("x"), chunk_ms=0)
    rig.run()
    assert [chunk.text for chunk in rig.heard[op].chunks] == ["a", "é", "日", "🙂", "b", ""]
    assert [len(chunk.ids) for chunk in rig.heard[op].chunks] == [1, 2, 3, 4, 1, 0]


def test_an_unfinished_character_at_the_end_becomes_a_replacement():
    rig = Rig(reply="a🙂")
    op = rig.generate(rig.context("x"), max_tokens=3)
    rig.run()
    assert (rig.heard[op].text, len(rig.heard[op].ids)) == ("a\N{REPLACEMENT CHARACTER}", 3)


# Stop strings.


def test_a_stop_string_across_tokens_is_neither_delivered_nor_kept():
    rig = Rig(reply="one two END three")
    ctx = rig.context("x")
    op = rig.generate(ctx, stop=["END"])
    rig.run()
    assert (rig.heard[op].text, rig.heard[op].finish) == ("one two ", "stop")
    assert rig.text(ctx) == "xone two "
    assert rig.heard[op].usage == Usage(1, 0, 8)


def test_text_that_turns_out_not_to_be_a_stop_is_released():
    rig = Rig(reply="an ENemy ENDs")
    op = rig.generate(rig.context("x"), stop=["END"], chunk_ms=0)
    rig.run()
    assert rig.heard[op].text == "an ENemy "
    texts = [chunk.text for chunk in rig.heard[op].chunks]
    assert texts == ["a", "n", " ", "ENe", "m", "y", " ", ""]


def test_text_held_back_at_the_end_of_the_reply_is_released():
    rig = Rig(reply="the EN")
    ctx = rig.context("x")
    op = rig.generate(ctx, stop=["END"], chunk_ms=0)
    rig.run()
    assert (rig.heard[op].text, rig.text(ctx)) == ("the EN", "xthe EN")


def test_a_token_in_which_the_stop_begins_is_kept_and_its_text_is_cut():
    rig = Rig(reply="fooEND", merges=[("o", "E")])
    ctx = rig.context("x")
    op = rig.generate(ctx, stop=["END"])
    rig.run()
    assert rig.heard[op].text == "foo"
    assert rig.tokenizer.decode(rig.heard[op].ids) == "fooE"
    assert rig.text(ctx) == "xfooE"


def test_the_first_of_several_stops_wins_and_may_hold_a_character_of_many_tokens():
    rig = Rig(reply="abc日本語def")
    op = rig.generate(rig.context("x"), stop=["def", "日本語", "本x"], chunk_ms=0)
    rig.run()
    assert (rig.heard[op].text, rig.heard[op].finish) == ("abc", "stop")
    assert [chunk.text for chunk in rig.heard[op].chunks if chunk.text] == ["a", "b", "c"]


def test_a_stop_string_in_the_prompt_does_not_count():
    rig = Rig(reply="Dance")
    op = rig.generate(rig.context("EN"), stop=["END"])
    rig.run()
    assert rig.heard[op].text == "Dance"


def test_a_stop_string_longer_than_the_window_does_not_lock_the_plan():
    reply = "a" * 100 + "b"
    rig = Rig(reply=reply)
    op = rig.generate(rig.context("x"), stop=["a" * 100 + "c"])
    rig.run()
    assert rig.heard[op].text == reply


def test_stop_tokens_are_neither_delivered_nor_kept_and_eos_can_be_ignored():
    rig = Rig(reply="abcdef")
    ctx = rig.context("x")
    (token,) = rig.tokenizer.encode("d")
    op = rig.generate(ctx, stop_tokens=[token])
    rig.run()
    assert (rig.heard[op].text, rig.heard[op].finish, rig.text(ctx)) == ("abc", "stop", "xabc")
    other = Rig(reply="ab")
    op = other.generate(other.context("x"), ignore_eos=True, max_tokens=4)
    other.run()
    assert other.heard[op].ids[-2:] == [*other.tokenizer.eos_ids] * 2
    assert (other.heard[op].text, other.heard[op].finish) == ("ab", "length")


# Stop, rewind, inject.


def test_a_stop_leaves_the_context_as_if_the_rest_had_never_been_generated():
    rig, fresh = Rig(), Rig()
    ctx = rig.context("abcd", seed=5)
    op = rig.generate(ctx, sampler=RANDOM)
    rig.step(30, after_s=0.1)
    rig.stop(op, keep=11)
    rig.step()
    heard = rig.heard[op]
    assert (heard.finish, heard.usage, len(rig.tokens(ctx))) == ("stopped", Usage(4, 0, 11), 15)
    assert rig.num_computed(ctx) == 15
    assert rig.core.pool.num_free == 256 - 4
    # What follows is what a context with these tokens generates, with the same random numbers.
    again = rig.generate(ctx, sampler=RANDOM, max_tokens=20)
    other = fresh.context("abcd", seed=5)
    fresh.send(Append(other, rig.tokens(ctx)[4:]))
    same = fresh.generate(other, sampler=RANDOM, max_tokens=20)
    rig.run()
    fresh.run()
    assert rig.heard[again].ids == fresh.heard[same].ids


def test_a_stop_that_crosses_the_end_of_the_plan_is_silent_and_cuts():
    rig = Rig()
    ctx = rig.context("abcd")
    op = rig.generate(ctx, max_tokens=10)
    rig.run()
    num_answers = rig.heard[op].num_answers
    rig.stop(op, keep=3)
    rig.step()
    assert rig.heard[op].num_answers == num_answers
    assert len(rig.tokens(ctx)) == 7


def test_a_rewound_stream_does_not_repeat_itself_and_is_reproducible():
    def story() -> tuple[list[int], list[int]]:
        rig = Rig()
        ctx = rig.context("abcd", seed=3)
        op = rig.generate(ctx, sampler=RANDOM, max_tokens=30)
        rig.step(20, after_s=0.1)
        before = list(rig.heard[op].ids)
        rig.steer(op, 5)
        rig.run()
        assert rig.heard[op].finish == "length"
        assert rig.heard[op].usage == Usage(4, 0, 30)
        assert rig.tokens(ctx)[4:] == rig.heard[op].ids
        return before, rig.heard[op].ids

    before, after = story()
    assert after[:5] == before[:5]
    assert after[5:20] != before[5:20]
    assert story() == (before, after)


def test_a_greedy_rewind_repeats_itself():
    rig = Rig()
    op = rig.generate(rig.context("abcd"), max_tokens=20)
    rig.step(12, after_s=0.1)
    before = list(rig.heard[op].ids)
    rig.steer(op, 0)
    rig.run()
    assert rig.heard[op].ids[:12] == before


def test_a_rewind_that_crosses_the_end_of_the_plan_resumes_it():
    rig = Rig()
    ctx = rig.context("abcd")
    op = rig.generate(ctx, max_tokens=10, sampler=RANDOM)
    rig.run()
    assert rig.heard[op].finish == "length"
    rig.steer(op, 4)
    rig.run()
    assert (rig.heard[op].finish, len(rig.heard[op].ids)) == ("length", 10)
    assert generated(rig, ctx, 4) == rig.heard[op].ids


def test_a_rewind_after_the_context_has_gone_on_fails():
    rig = Rig()
    ctx = rig.context("abcd")
    op = rig.generate(ctx, max_tokens=10)
    rig.run()
    rig.send(Append(ctx, [1]))
    rig.steer(op, 4)
    rig.step()
    error = rig.heard[op].error
    assert error is not None
    assert error.code == "not_found"
    assert len(rig.tokens(ctx)) == 15


def test_rewinding_takes_the_stop_hold_back_and_the_detokenizer_with_it():
    rig = Rig(reply="xEND")
    ctx = rig.context("y")
    op = rig.generate(ctx, stop=["END"], chunk_ms=0)
    rig.step(2, after_s=0.1)
    assert rig.heard[op].text == "x"
    # `E` is held back; rewound away, it comes again and the stop is found again.
    rig.steer(op, 1)
    rig.run()
    assert (rig.heard[op].text, rig.heard[op].finish) == ("x", "stop")
    assert rig.text(ctx) == "yx"


def test_injected_tokens_come_as_a_chunk_and_go_on():
    rig = Rig()
    ctx = rig.context("abcd")
    op = rig.generate(ctx, max_tokens=20, logprobs=True)
    rig.step(10, after_s=0.1)
    forced = rig.tokenizer.encode("wait")
    rig.steer(op, 6, forced)
    num_chunks = len(rig.heard[op].chunks)
    rig.run()
    heard = rig.heard[op]
    assert heard.chunks[num_chunks].ids[:4] == forced
    assert heard.chunks[num_chunks].index == 6
    assert heard.chunks[num_chunks].logprobs[:4] == [0.0] * 4
    assert (heard.ids[6:10], len(heard.ids), heard.finish) == (forced, 20, "length")
    assert generated(rig, ctx, 4) == heard.ids


def test_an_injection_does_not_turn_the_random_numbers():
    """The same tokens with the same seed go on alike, whether they were forced or were there."""
    rig, fresh = Rig(), Rig()
    ctx, other = rig.context("abcd", seed=9), fresh.context("abcdwait", seed=9)
    op = rig.generate(ctx, sampler=RANDOM, max_tokens=24)
    rig.step(3, after_s=0.1)
    rig.steer(op, 0, rig.tokenizer.encode("wait"))
    same = fresh.generate(other, sampler=RANDOM, max_tokens=20)
    rig.run()
    fresh.run()
    assert rig.heard[op].ids[4:] == fresh.heard[same].ids


def test_an_injected_stop_string_is_no_reason_to_stop():
    rig = Rig(reply="")
    ctx = rig.context("abcd")
    op = rig.generate(ctx, stop=["END"], ignore_eos=True, max_tokens=12)
    rig.step(after_s=0.1)
    rig.steer(op, 0, rig.tokenizer.encode("xEND E"))
    rig.run()
    assert (rig.heard[op].text, rig.heard[op].finish) == ("xEND E", "length")


def test_an_injection_up_to_max_tokens_ends_the_plan():
    rig = Rig()
    op = rig.generate(rig.context("abcd"), max_tokens=5)
    rig.step(2, after_s=0.1)
    rig.steer(op, 2, [1, 2, 3])
    rig.step()
    assert (rig.heard[op].finish, rig.heard[op].ids[2:]) == ("length", [1, 2, 3])


def test_steering_a_plan_that_has_not_begun():
    rig = Rig()
    ctx = rig.context("abcd")
    first, second = rig.generate(ctx, max_tokens=5), rig.generate(ctx, max_tokens=8)
    rig.steer(second, 0, [1, 2, 3])
    rig.run()
    assert len(rig.heard[first].ids) == 5
    assert rig.heard[second].ids[:3] == [1, 2, 3]
    assert rig.tokens(ctx)[4:] == [*rig.heard[first].ids, *rig.heard[second].ids]


def test_stopping_a_plan_that_has_not_begun():
    rig = Rig()
    ctx = rig.context("abcd")
    first, second = rig.generate(ctx, max_tokens=5), rig.generate(ctx, max_tokens=8)
    third = rig.flush(ctx)
    rig.stop(second)
    rig.run()
    assert (rig.heard[second].finish, rig.heard[second].ids) == ("stopped", [])
    assert len(rig.heard[first].ids) == 5
    assert rig.heard[third].is_flushed


def test_keeping_more_than_was_generated_is_refused():
    rig = Rig()
    op = rig.generate(rig.context("abcd"))
    rig.step(3, after_s=0.1)
    rig.steer(op, 1000)
    rig.step()
    error = rig.heard[op].error
    assert error is not None
    assert error.code == "internal"


# Forks and random numbers.


def test_a_fork_during_a_plan_starts_from_what_was_delivered():
    rig = Rig()
    ctx = rig.context("abcdef")
    op = rig.generate(ctx, max_tokens=30)
    rig.step(20, after_s=0.1)
    child = rig.fork(ctx, 6 + 9)
    assert rig.tokens(child) == rig.tokens(ctx)[:15]
    child_op = rig.generate(child, max_tokens=21)
    rig.run()
    # Greedy: both write the same text, each in pages of its own.
    assert rig.tokens(child) == rig.tokens(ctx)
    assert rig.heard[child_op].usage == Usage(15, 14, 21)
    assert rig.heard[child_op].ids == rig.heard[op].ids[9:]
    assert rig.driver.num_copies == 1


def test_forks_differ_and_are_reproducible():
    def texts() -> list[list[int]]:
        rig = Rig()
        ctx = rig.context("abcd", seed=11)
        children = [rig.fork(ctx, 4) for _ in range(3)]
        grandchild = rig.fork(children[0], 4)
        ops = [rig.generate(each, sampler=RANDOM, max_tokens=12) for each in (ctx, *children, grandchild)]
        rig.run()
        return [rig.heard[op].ids for op in ops]

    first = texts()
    assert len({tuple(ids) for ids in first}) == 5
    assert texts() == first


def test_a_truncation_turns_the_random_numbers():
    rig = Rig()
    ctx = rig.context("abcd")
    first = rig.generate(ctx, sampler=RANDOM, max_tokens=12)
    rig.run()
    rig.send(Truncate(ctx, 4))
    second = rig.generate(ctx, sampler=RANDOM, max_tokens=12)
    rig.run()
    assert rig.heard[first].ids != rig.heard[second].ids


def test_an_explicit_seed_starts_anew():
    rig = Rig()
    ctx = rig.context("abcd", seed=1)
    first = rig.generate(ctx, sampler=RANDOM, max_tokens=12, seed=77)
    rig.run()
    rig.send(Truncate(ctx, 4))
    child = rig.fork(ctx, 4)
    second = rig.generate(ctx, sampler=RANDOM, max_tokens=12, seed=77)
    third = rig.generate(child, sampler=RANDOM, max_tokens=12, seed=77)
    other = rig.generate(rig.context("abcd", seed=2), sampler=RANDOM, max_tokens=12, seed=77)
    rig.run()
    assert rig.heard[first].ids == rig.heard[second].ids == rig.heard[third].ids == rig.heard[other].ids


def test_a_request_gives_the_same_tokens_alone_and_in_a_batch_of_others():
    def ask(rig: Rig) -> int:
        return rig.generate(rig.context("the one request", seed=4), sampler=RANDOM, max_tokens=40)

    alone = Rig()
    op = ask(alone)
    alone.run()
    crowd = Rig(max_batch_tokens=8, num_pages=60)
    for index in range(6):
        crowd.generate(crowd.context("other " * (index + 1), seed=index), sampler=RANDOM, max_tokens=20)
    crowd.step(3, after_s=0.1)
    same = ask(crowd)
    crowd.run()
    assert crowd.heard[same].ids == alone.heard[op].ids


def test_a_random_text_ends_by_itself():
    rig = Rig(script=FakeScript(mean_length=20))
    ops = [rig.generate(rig.context("abcd", seed=seed), sampler=RANDOM) for seed in range(8)]
    rig.run()
    assert {rig.heard[op].finish for op in ops} == {"stop"}
