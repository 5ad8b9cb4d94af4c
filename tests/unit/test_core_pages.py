"""Batches, out of pages, limits, and what can be looked at."""

from __future__ import annotations

import dataclasses

import pytest

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core
from pie_engine.core.reserve import num_pages_of
from pie_engine.driver.base import Capabilities
from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript
from pie_engine.errors import OutOfPages, Unsupported
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import (
    Append,
    CreateContext,
    Generate,
    OpenProcess,
)
from tests.unit.core_rig import HOST, RANDOM, Rig, byte_tokenizer, error_of

# Batches.


def test_a_long_prompt_does_not_stall_the_decoders():
    rig = Rig(max_batch_tokens=16)
    op = rig.generate(rig.context("abcd"))
    rig.step()
    rig.flush(rig.context("x" * 100))
    rig.step(7)
    assert rig.driver.steps[1:] == [[(4 + step, 1), (15 * step, min(15, 100 - 15 * step))] for step in range(7)]
    rig.run()
    assert len(rig.heard[op].ids) > 7


def test_prefills_are_chunked_in_their_order():
    rig = Rig(max_batch_tokens=8)
    ops = [rig.flush(rig.context(letter * 10)) for letter in "xy"]
    rig.run()
    assert rig.driver.steps == [[(0, 8)], [(8, 2), (0, 6)], [(6, 4)]]
    assert all(rig.heard[op].is_flushed for op in ops)


def test_more_plans_than_sequences_all_make_progress():
    rig = Rig(max_batch_sequences=3)
    ops = [rig.generate(rig.context("abcd"), max_tokens=30) for _ in range(10)]
    rig.step(60, after_s=0.1)
    assert all(len(rig.heard[op].ids) > 5 for op in ops)
    rig.run()
    assert all(len(rig.heard[op].ids) == 30 for op in ops)
    assert max(len(step) for step in rig.driver.steps) == 3


def test_a_new_prompt_is_let_in_although_decoders_fill_the_batch():
    rig = Rig(max_batch_sequences=2)
    for _ in range(4):
        rig.generate(rig.context("abcd"))
    rig.step(20, after_s=0.1)
    late = rig.generate(rig.context("efgh"), max_tokens=2)
    rig.step(10, after_s=0.1)
    assert rig.heard[late].finish == "length"


# Out of pages.


def test_the_youngest_plan_is_put_back_and_recomputed():
    alone = [Rig() for _ in range(3)]
    rig = Rig(num_pages=20)
    prompts = ["first " * 2, "second " * 2, "third " * 2]
    ops = [rig.generate(rig.context(prompt, seed=1), sampler=RANDOM, max_tokens=30) for prompt in prompts]
    rig.run()
    for single, prompt, op in zip(alone, prompts, ops, strict=True):
        same = single.generate(single.context(prompt, seed=1), sampler=RANDOM, max_tokens=30)
        single.run()
        assert rig.heard[op].ids == single.heard[same].ids
    assert rig.core.stats().num_preemptions > 0


def test_the_oldest_plan_is_never_put_back():
    rig = Rig(num_pages=12)
    ops = [rig.generate(rig.context("abcd"), max_tokens=30) for _ in range(5)]
    done: list[int] = []
    for _ in range(400):
        rig.step(after_s=0.1)
        rig.take_all()
        done += [op for op in ops if op in rig.heard and rig.heard[op].finish and op not in done]
    assert done == ops


def test_idle_contexts_lose_their_pages_first_the_longest_unused_before_the_others():
    rig = Rig(num_pages=10)
    contexts = [rig.context(letter * 12) for letter in "abc"]
    for ctx in contexts:
        rig.flush(ctx)
        rig.run()
    op = rig.generate(rig.context("y" * 12), max_tokens=4)
    rig.run()
    assert [rig.num_computed(ctx) for ctx in contexts] == [0, 12, 12]
    assert rig.core.stats().num_preemptions == 0
    assert rig.heard[op].finish == "length"
    # The context that lost its pages is as good as ever.
    again = rig.generate(contexts[0], max_tokens=2)
    rig.run()
    assert rig.heard[again].usage is not None
    assert rig.heard[again].usage.cached_tokens == 0


def test_a_parked_plan_gives_its_pages_to_a_younger_one_and_goes_on_later():
    rig, free = Rig(num_pages=24), Rig()
    parked = rig.generate(rig.context("abcd"), sampler=RANDOM, max_tokens=70)
    rig.run(takes=False)
    other = rig.generate(rig.context("efgh"), max_tokens=60)
    rig.run(takes=False)
    assert rig.heard[other].finish == "length"
    rig.run()
    same = free.generate(free.context("abcd"), sampler=RANDOM, max_tokens=70)
    free.run()
    assert rig.heard[parked].ids == free.heard[same].ids
    assert rig.core.stats().num_preemptions > 0


def test_a_prompt_larger_than_the_pool_is_refused_at_the_door_with_the_numbers():
    rig = Rig(num_pages=4)
    ctx = rig.context("x" * 17)
    ops = [rig.generate(ctx), rig.flush(ctx), rig.forward(ctx, [1], Sampler())]
    rig.run()
    for op in ops:
        assert error_of(rig, op).code == "out_of_pages"
    message = error_of(rig, ops[0]).message
    assert "17 tokens" in message
    assert "needs 5 KV pages" in message
    assert "has 4 in all" in message
    assert "num_pages" in error_of(rig, ops[0]).hint
    assert rig.driver.steps == []


@pytest.mark.parametrize("max_tokens", [None, 8, 1000])
def test_a_reply_ends_with_what_it_has_when_its_context_takes_all_pages(max_tokens: int | None):
    rig = Rig(num_pages=4)
    ctx = rig.context("x" * 10)
    op = rig.generate(ctx, max_tokens=max_tokens)
    rig.run()
    assert (rig.heard[op].finish, len(rig.heard[op].ids)) == ("pages", 7)
    assert rig.tokens(ctx)[10:] == rig.heard[op].ids
    again = rig.generate(ctx)
    rig.run()
    assert "has 17 tokens and needs 5 KV pages of 4 tokens" in error_of(rig, again).message


def test_a_reply_that_others_read_along_with_ends_with_the_pages_too():
    """What it shares and what others hold does not count: they give way."""
    rig = Rig(num_pages=4)
    ctx = rig.context("x" * 10)
    fork = rig.fork(ctx, 10)
    ops = [rig.generate(each) for each in (ctx, fork)]
    rig.run()
    assert [(rig.heard[op].finish, len(rig.heard[op].ids)) for op in ops] == [("pages", 7)] * 2


@pytest.mark.parametrize(("window", "finish"), [(4, "length"), (100, "pages")])
def test_a_context_that_forgets_ends_for_want_of_pages_if_its_window_takes_all(window: int, finish: str):
    rig = Rig(num_pages=6)
    op = rig.generate(rig.context("x" * 10), max_tokens=40, window=window)
    rig.run()
    assert rig.heard[op].finish == finish
    assert len(rig.heard[op].ids) == (40 if finish == "length" else 15)


def test_a_context_up_to_the_last_page_runs():
    rig = Rig(num_pages=4)
    op = rig.generate(rig.context("x" * 10), max_tokens=7)
    rig.run()
    assert (rig.heard[op].finish, len(rig.heard[op].ids)) == ("length", 7)


def test_a_large_newcomer_is_not_overtaken_for_ever_by_small_ones():
    rig = Rig(num_pages=16)
    running = rig.generate(rig.context("a" * 20), max_tokens=30)
    rig.step(2, after_s=0.1)
    large = rig.flush(rig.context("b" * 44))
    for _ in range(4):
        rig.generate(rig.context("c" * 4), max_tokens=4)
    rig.step(2, after_s=0.1)
    assert rig.core.stats().processes[0].num_pages < 16
    rig.run()
    assert rig.heard[large].is_flushed
    assert rig.heard[running].finish == "length"


def test_a_prompt_that_waits_for_pages_takes_no_place_in_the_batch():
    rig = Rig(num_pages=4, max_batch_sequences=1)
    running = rig.generate(rig.context("abcd"), max_tokens=11)
    rig.step(2, after_s=0.1)
    waiting = rig.flush(rig.context("x" * 12))
    rig.step(after_s=0.1)
    assert len(rig.driver.steps) == 3
    rig.run()
    assert rig.heard[running].finish == "length"
    assert rig.heard[waiting].is_flushed


def test_forks_of_one_prompt_share_its_pages():
    rig = Rig(num_pages=16)
    ctx = rig.context("x" * 40)
    rig.flush(ctx)
    rig.run()
    ops = [rig.generate(rig.fork(ctx, 40), sampler=RANDOM, max_tokens=4) for _ in range(2)]
    rig.run()
    assert [len(rig.heard[op].ids) for op in ops] == [4, 4]
    assert rig.core.stats().num_preemptions == 0


# The model's context.


def test_a_prompt_longer_than_the_models_context_is_refused_with_the_numbers():
    rig = Rig(script=FakeScript(max_context_tokens=20))
    ctx = rig.context("x" * 21)
    ops = [rig.generate(ctx), rig.flush(ctx), rig.forward(ctx, [1])]
    rig.run()
    for op in ops:
        assert error_of(rig, op).code == "context_too_long"
    assert "21 tokens" in error_of(rig, ops[0]).message
    assert "takes 20" in error_of(rig, ops[0]).message


def test_the_end_of_the_models_context_is_told_from_max_tokens():
    rig = Rig(script=FakeScript(max_context_tokens=20))
    op = rig.generate(rig.context("x" * 12), max_tokens=1000)
    exact = rig.generate(rig.context("x" * 12), max_tokens=8)
    full = rig.generate(rig.context("x" * 20))
    rig.run()
    assert (rig.heard[op].finish, len(rig.heard[op].ids)) == ("context", 8)
    assert (rig.heard[exact].finish, len(rig.heard[exact].ids)) == ("length", 8)
    assert (rig.heard[full].finish, rig.heard[full].ids) == ("context", [])


def test_an_injection_beyond_the_models_context_fails_and_keeps_what_was_delivered():
    rig = Rig(script=FakeScript(max_context_tokens=20))
    ctx = rig.context("x" * 12)
    op = rig.generate(ctx)
    rig.step(3, after_s=0.1)
    rig.steer(op, 2, [1] * 10)
    rig.step()
    assert error_of(rig, op).code == "context_too_long"
    assert rig.tokens(ctx)[12:] == rig.heard[op].ids


# Looking.


def test_stats_say_what_each_process_holds_and_does():
    rig = Rig()
    rig.send(OpenProcess("p2", "idle"))
    ctx = rig.context("abcdef")
    rig.generate(ctx, max_tokens=50)
    rig.fork(ctx, 6)
    rig.step(3)
    stats = rig.core.stats()
    running, idle = stats.processes
    assert (running.state, running.num_contexts, running.num_pages, running.num_tokens) == ("running", 2, 2, 3)
    assert (idle.pid, idle.state, idle.num_contexts) == ("p2", "idle", 0)
    done = stats.batches
    assert (done.num_steps, done.num_prefill_tokens, done.num_decode_tokens, done.num_sequences) == (3, 6, 2, 3)
    assert stats.num_pages - stats.num_free_pages == 2


def test_a_leak_is_found_logged_and_counted(caplog: pytest.LogCaptureFixture):
    rig = Rig()
    leaked = rig.core.pool.take()
    assert len(rig.core.check_integrity()) == 1
    assert f"page {leaked}" in caplog.text
    assert rig.core.stats().num_violations == 1


def test_the_number_of_pages_comes_from_the_configuration():
    assert num_pages_of(ModelSection(num_pages=7), 1 << 20) == 7
    assert num_pages_of(ModelSection(kv_memory_mb=64), 1 << 20) == 64
    with pytest.raises(OutOfPages, match="kv_memory_mb = 1 does not hold one KV page"):
        num_pages_of(ModelSection(kv_memory_mb=1), 1 << 21)


def test_what_a_driver_cannot_promise_is_refused():
    class Careless(FakeDriver):
        @property
        def capabilities(self) -> Capabilities:
            return dataclasses.replace(super().capabilities, is_deterministic=False)

    tokenizer = byte_tokenizer()
    with pytest.raises(Unsupported, match="`deterministic` is not for pie-tiny: on the fake driver its results depend"):
        Core(Careless(tokenizer), tokenizer, ModelSection(deterministic=True))
    Core(Careless(tokenizer), tokenizer, ModelSection(num_pages=8))


def test_the_clock_is_the_monotonic_one_by_default():
    tokenizer = byte_tokenizer()
    core = Core(FakeDriver(tokenizer), tokenizer, ModelSection(num_pages=8))
    core.receive(HOST, [OpenProcess("p", "t"), CreateContext(1, "p", 1), Append(1, [1]), Generate(1, 1, Plan())])
    core.step()
    assert list(core.take_outgoing()) == [HOST]
