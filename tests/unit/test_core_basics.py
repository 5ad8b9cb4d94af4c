"""The core inline, on the fake driver: the life of plans, passes and flushes."""

from __future__ import annotations

from pie_engine.protocol.plan import Usage
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import (
    Append,
)
from pie_engine.protocol.to_host import (
    Forwarded,
)
from tests.unit.core_rig import (
    RANDOM,
    Rig,
)


def test_a_plan_runs_from_prompt_to_stop_token():
    rig = Rig(reply="Hello, world!")
    ctx = rig.context("Say hello.")
    op = rig.generate(ctx)
    rig.run()
    heard = rig.heard[op]
    assert heard.text == "Hello, world!"
    assert heard.finish == "stop"
    assert heard.usage == Usage(10, 0, 13)
    # The stop token is neither delivered nor kept.
    assert rig.text(ctx) == "Say hello.Hello, world!"
    assert heard.ids == rig.tokens(ctx)[10:]


def test_max_tokens_ends_with_length_and_exact_counts():
    rig = Rig()
    ctx = rig.context("abc")
    op = rig.generate(ctx, max_tokens=10)
    rig.run()
    heard = rig.heard[op]
    assert (heard.finish, len(heard.ids), heard.usage) == ("length", 10, Usage(3, 0, 10))
    assert len(rig.tokens(ctx)) == 13


def test_a_second_plan_counts_what_is_cached():
    rig = Rig()
    ctx = rig.context("abcdef")
    rig.generate(ctx, max_tokens=5)
    rig.run()
    second = rig.generate(ctx, max_tokens=2)
    rig.run()
    assert rig.heard[second].usage == Usage(11, 10, 2)


def test_max_tokens_0_ends_at_once_without_a_step():
    rig = Rig()
    op = rig.generate(rig.context("abc"), max_tokens=0)
    rig.run()
    assert (rig.heard[op].finish, rig.heard[op].usage) == ("length", Usage(3, 0, 0))
    assert rig.driver.steps == []


def test_generating_on_an_empty_context_is_invalid_input():
    rig = Rig()
    ctx = rig.context("")
    ops = [rig.generate(ctx), rig.generate(ctx, max_tokens=0), rig.forward(ctx, sampler=RANDOM)]
    rig.run()
    for op in ops:
        error = rig.heard[op].error
        assert error is not None
        assert error.code == "invalid_input"
        assert "empty" in error.message


def test_generate_after_a_flush_runs_the_last_token_again():
    rig, direct = Rig(), Rig()
    ctx, other = rig.context("abcdefgh"), direct.context("abcdefgh")
    flushed = rig.flush(ctx)
    rig.run()
    assert rig.heard[flushed].is_flushed
    assert rig.num_computed(ctx) == 8
    op, same = rig.generate(ctx, max_tokens=6), direct.generate(other, max_tokens=6)
    rig.run()
    direct.run()
    assert rig.heard[op].ids == direct.heard[same].ids
    assert rig.heard[op].usage == Usage(8, 7, 6)
    assert rig.driver.steps[1] == [(7, 1)]


def test_generate_with_pending_tokens_computes_them_first():
    rig = Rig()
    ctx = rig.context("abcd")
    rig.flush(ctx)
    rig.run()
    rig.send(Append(ctx, [1, 2, 3]))
    op = rig.generate(ctx, max_tokens=1)
    rig.run()
    assert rig.driver.steps == [[(0, 4)], [(4, 3)]]
    assert rig.heard[op].usage == Usage(7, 4, 1)


def test_a_flush_of_nothing_is_done_at_once():
    rig = Rig()
    op = rig.flush(rig.context(""))
    rig.step()
    assert rig.heard[op].is_flushed


def test_a_pass_appends_and_looks_at_the_last_position():
    rig = Rig()
    ctx = rig.context("abcd")
    op = rig.forward(ctx, [5, 6], Sampler(), 3)
    rig.run()
    answer = rig.heard[op].forwarded
    assert answer is not None
    assert answer.token == answer.probed.top[0].token
    assert answer.logprob is not None
    assert len(answer.probed.top) == 3
    # The sample is not appended.
    assert rig.tokens(ctx) == [*rig.tokenizer.encode("abcd"), 5, 6]
    assert rig.driver.steps == [[(0, 6)]]


def test_a_pass_without_a_sampler_gives_the_distribution_only():
    rig = Rig()
    ctx = rig.context("abcd")
    probe, silent = rig.forward(ctx, [5], None, 2), rig.forward(ctx, [6])
    rig.run()
    answer = rig.heard[probe].forwarded
    assert answer is not None
    assert (answer.token, answer.logprob, len(answer.probed.top)) == (None, None, 2)
    assert rig.heard[silent].forwarded == Forwarded(silent)


def test_a_loop_of_passes_makes_the_tokens_of_a_plan():
    rig = Rig()
    by_plan, by_hand = rig.context("abcd"), rig.context("abcd")
    op = rig.generate(by_plan, max_tokens=8, sampler=RANDOM)
    rig.run()
    tokens: list[int] = []
    for _ in range(8):
        step = rig.forward(by_hand, tokens[-1:], RANDOM)
        rig.run()
        answer = rig.heard[step].forwarded
        assert answer is not None
        assert answer.token is not None
        tokens.append(answer.token)
    assert tokens == rig.heard[op].ids


def test_logprobs_come_with_each_token():
    rig = Rig()
    op = rig.generate(rig.context("abcd"), max_tokens=30, sampler=RANDOM, logprobs=True)
    rig.run()
    for chunk in rig.heard[op].chunks:
        assert len(chunk.logprobs) == len(chunk.ids)
        assert all(logprob < 0 for logprob in chunk.logprobs)


def test_operations_on_one_context_run_in_their_order():
    rig = Rig()
    ctx = rig.context("abcd")
    plan, step, flush = rig.generate(ctx, max_tokens=5), rig.forward(ctx, [7, 8], Sampler()), rig.flush(ctx)
    second = rig.generate(ctx, max_tokens=3)
    rig.run()
    assert rig.tokens(ctx) == [*rig.tokenizer.encode("abcd"), *rig.heard[plan].ids, 7, 8, *rig.heard[second].ids]
    assert rig.heard[step].forwarded is not None
    assert rig.heard[flush].is_flushed
    assert rig.heard[second].usage == Usage(11, 10, 3)


def test_two_contexts_run_in_one_batch():
    rig = Rig()
    ops = [rig.generate(rig.context(prompt), max_tokens=4) for prompt in ("abcd", "efgh")]
    rig.run()
    assert rig.driver.steps == [[(0, 4), (0, 4)], *[[(4 + step, 1)] * 2 for step in range(3)]]
    assert [len(rig.heard[op].ids) for op in ops] == [4, 4]
