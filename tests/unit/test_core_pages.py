"""Out of pages, limits, batches, deaths and mistakes."""

from __future__ import annotations

import dataclasses

import pytest

from pie_engine.config import ModelSection
from pie_engine.core.loop import Core, DeviceFailed
from pie_engine.core.reserve import num_pages_of
from pie_engine.driver.base import Capabilities
from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript, Fault
from pie_engine.errors import ErrorInfo, OutOfPages, Unsupported
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import (
    Append,
    CloseProcess,
    CreateContext,
    Delivered,
    Flush,
    Fork,
    Forward,
    Generate,
    OpenProcess,
    Release,
    Steer,
    Stop,
    Truncate,
)
from tests.unit.core_rig import HOST, RANDOM, Rig, byte_tokenizer


def error_of(rig: Rig, op: int) -> ErrorInfo:
    error = rig.heard[op].error
    assert error is not None, rig.heard[op]
    return error


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


def test_a_plan_that_outgrows_the_pool_alone_fails_after_delivering_what_it_has():
    rig = Rig(num_pages=4)
    ctx = rig.context("x" * 10)
    op = rig.generate(ctx)
    rig.run()
    assert error_of(rig, op).code == "out_of_pages"
    assert len(rig.heard[op].ids) == 7
    assert rig.tokens(ctx)[10:] == rig.heard[op].ids


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


# Failures.


def test_a_failed_row_fails_its_operation_only():
    rig = Rig(script=FakeScript(faults=(Fault(step=3, row=0, message="NaN"),)))
    ctx = rig.context("abcd")
    first, second = rig.generate(ctx, max_tokens=10), rig.generate(rig.context("efgh"), max_tokens=10)
    rig.run()
    assert "NaN" in error_of(rig, first).message
    assert rig.tokens(ctx)[4:] == rig.heard[first].ids
    assert len(rig.heard[first].ids) == 3
    assert rig.heard[second].finish == "length"
    # The context lives on.
    again = rig.generate(ctx, max_tokens=2)
    rig.run()
    assert rig.heard[again].finish == "length"


def test_a_failed_step_fails_everything_and_raises():
    rig = Rig(script=FakeScript(faults=(Fault(step=2, message="cable pulled"),)))
    ctx = rig.context("abcd")
    ops = [rig.generate(ctx), rig.flush(ctx), rig.generate(rig.context("x"))]
    rig.step(2)
    with pytest.raises(DeviceFailed, match="cable pulled"):
        rig.step()
    rig.hear()
    for op in ops:
        assert error_of(rig, op).code == "core_lost"
        assert "test-model" in error_of(rig, op).message
        assert "cable pulled" in error_of(rig, op).message
    assert rig.core.is_idle


def test_tokens_outside_the_vocabulary_never_reach_the_device():
    rig = Rig()
    ctx, other, running = rig.context("abcd"), rig.context("abcd"), rig.context("abcd")
    rig.send(Append(ctx, [100_000]))
    plan, step = rig.generate(ctx), rig.forward(other, [-1], Sampler())
    steered = rig.generate(running)
    rig.step()
    rig.steer(steered, 1, [999])
    rig.run()
    for op in (plan, step, steered):
        assert error_of(rig, op).code == "invalid_input"
        assert "vocabulary" in error_of(rig, op).message
    assert "100000" in error_of(rig, plan).message


def test_a_top_k_that_the_driver_cannot_give_is_refused_with_the_number():
    rig = Rig()
    op = rig.forward(rig.context("abcd"), [1], None, 100_000)
    rig.run()
    assert error_of(rig, op).code == "invalid_input"
    assert "100000" in error_of(rig, op).message


def test_unknown_ids_are_answered_or_ignored_and_never_crash():
    rig = Rig()
    rig.send(
        Append(99, [1]),
        Truncate(99, 0),
        Release(99),
        Fork(99, 98, 0),
        Delivered(99, 0, 1),
        Stop(99),
        CloseProcess("nobody"),
        CreateContext(97, "nobody", 1),
        Flush(1001, 99),
        Forward(1002, 99, [1]),
        Generate(1003, 98, Plan()),
        Steer(1004, 1, 0),
        Flush(1005, 97),
    )
    rig.run()
    for op in range(1001, 1006):
        assert error_of(rig, op).code == "not_found"


def test_changing_a_busy_context_fails_what_runs_there_and_is_done():
    rig = Rig()
    ctx = rig.context("abcd")
    plan, flush = rig.generate(ctx), rig.flush(ctx)
    rig.step(3, after_s=0.1)
    rig.send(Append(ctx, [1, 2]))
    rig.step()
    assert error_of(rig, plan).code == error_of(rig, flush).code == "internal"
    assert rig.tokens(ctx)[4:] == [*rig.heard[plan].ids, 1, 2]


def test_releasing_a_context_ends_its_operations():
    rig = Rig()
    ctx = rig.context("abcd")
    ops = [rig.generate(ctx), rig.flush(ctx)]
    rig.step(3)
    rig.send(Release(ctx))
    rig.run()
    assert [error_of(rig, op).code for op in ops] == ["cancelled", "cancelled"]
    assert rig.core.pool.num_free == 256


def test_a_pass_that_is_called_off_leaves_its_tokens():
    rig = Rig()
    ctx = rig.context("abcd")
    plan = rig.generate(ctx, max_tokens=3)
    waiting, flush = rig.forward(ctx, [7, 8], Sampler()), rig.flush(ctx)
    rig.stop(waiting)
    rig.stop(waiting)
    rig.run()
    assert error_of(rig, waiting).code == "cancelled"
    assert rig.tokens(ctx)[4:] == [*rig.heard[plan].ids, 7, 8]
    assert rig.heard[flush].is_flushed


def test_a_flush_that_is_called_off_half_way():
    rig = Rig(max_batch_tokens=8)
    ctx = rig.context("x" * 30)
    op = rig.flush(ctx)
    rig.step(2)
    rig.stop(op)
    rig.run()
    assert error_of(rig, op).code == "cancelled"
    assert rig.num_computed(ctx) == 16


def test_closing_a_process_in_the_middle_frees_everything_silently():
    rig = Rig(max_batch_tokens=8)
    rig.send(OpenProcess("p2", "other"))
    ctx = rig.context("x" * 30, pid="p2")
    ops = [rig.generate(ctx), rig.flush(ctx)]
    neighbour = rig.generate(rig.context("abcd"), max_tokens=5)
    rig.step(2)
    rig.send(CloseProcess("p2"), CloseProcess("p2"))
    rig.run()
    assert not any(op in rig.heard for op in ops)
    assert rig.heard[neighbour].finish == "length"
    assert [usage.pid for usage in rig.core.stats().processes] == ["p1"]
    rig.send(CloseProcess("p1"))
    assert rig.core.pool.num_free == 256


def test_the_death_of_a_host_frees_only_what_was_its_own():
    rig = Rig()
    mine = rig.generate(rig.context("abcd"), max_tokens=5)
    rig.send(OpenProcess("q1", "t"), CreateContext(1, "q1", 1), Append(1, [1, 2]), host="host-2")
    rig.send(Generate(1, 1, Plan()), host="host-2")
    rig.step(2)
    rig.core.close_host("host-2")
    rig.core.close_host("host-2")
    rig.run()
    assert rig.heard[mine].finish == "length"
    assert "host-2" not in rig.core.take_outgoing()
    rig.core.close_host(HOST)
    assert rig.core.pool.num_free == 256
    assert rig.core.stats().processes == []


def test_ids_of_two_hosts_do_not_meet():
    rig = Rig()
    ctx = rig.context("abcd")
    rig.send(OpenProcess("q1", "t"), CreateContext(ctx, "q1", 1), Append(ctx, [1, 2]), host="host-2")
    assert rig.tokens(ctx) != rig.tokens(ctx, "host-2")


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
    assert (stats.num_steps, stats.num_prefill_tokens, stats.num_decode_tokens) == (3, 6, 2)
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
