"""Failures, mistakes and deaths: each ends what is its own, and frees it."""

from __future__ import annotations

import pytest

from pie_engine.core.loop import DeviceFailed
from pie_engine.driver.fake_script import FakeScript, Fault
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
from tests.unit.core_rig import HOST, Rig, error_of


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
