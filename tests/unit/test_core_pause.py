"""A process that is paused: nothing of it runs, its time stands still, and its pages are the first to go."""

from __future__ import annotations

from pie_engine.protocol.plan import BeamPlan
from pie_engine.protocol.to_core import CloseProcess, OpenProcess, PauseProcess, ResumeProcess, Search
from tests.unit.core_rig import Rig


def test_a_paused_process_does_not_run_and_goes_on_where_it_was():
    rig, other = Rig(reply="hello there"), Rig(reply="hello there")
    op = rig.generate(rig.context("abcdef"), max_tokens=8)
    rig.step(3)
    rig.send(PauseProcess("p1"), PauseProcess("p1"))
    assert rig.core.is_idle
    num_steps = rig.core.num_steps
    rig.step(5, after_s=1.0)
    assert rig.core.num_steps == num_steps
    assert rig.core.stats().processes[0].state == "paused"
    assert [context.state for context in rig.core.contexts_of("p1")] == ["paused"]
    rig.send(ResumeProcess("p1"), ResumeProcess("p1"))
    rig.run()
    expected = other.generate(other.context("abcdef"), max_tokens=8)
    other.run()
    assert rig.heard[op].text == other.heard[expected].text


def test_others_go_on_and_what_arrives_for_a_paused_one_waits():
    rig = Rig(reply="hello there")
    rig.send(OpenProcess("p2", "other"), PauseProcess("p1"))
    paused, running = rig.generate(rig.context("abc"), max_tokens=4), rig.generate(rig.context("abc", pid="p2"))
    rig.run()
    assert rig.heard[running].finish is not None
    assert paused not in rig.heard
    rig.send(ResumeProcess("p1"))
    rig.run()
    assert rig.heard[paused].finish == "length"


def test_the_time_of_a_plan_stands_still():
    rig = Rig(reply="hello there")
    ctx = rig.context("abc")
    op = rig.generate(ctx, max_tokens=20, timeout_s=1.0)
    behind = rig.generate(ctx, max_tokens=2, timeout_s=1.0)
    rig.step(after_s=0.5)
    rig.send(PauseProcess("p1"))
    assert rig.core.next_due_at is None or rig.core.next_due_at > rig.now, "a loop that waited for it would spin"
    rig.step(after_s=100.0)
    assert rig.heard[op].finish is None
    rig.send(ResumeProcess("p1"))
    rig.step(after_s=0.4)
    assert rig.heard[op].finish is None
    rig.step(after_s=0.2)
    assert (rig.heard[op].finish, rig.heard[behind].finish) == ("deadline", "deadline")


def test_its_pages_go_before_those_of_a_younger_one_that_runs():
    rig = Rig(reply="x", num_pages=12)
    rig.send(OpenProcess("p2", "other"))
    held = rig.context("abcd" * 5)
    rig.generate(held, max_tokens=4)
    rig.step(1)
    rig.send(PauseProcess("p1"))
    op = rig.generate(rig.context("efgh" * 10, pid="p2"), max_tokens=2)
    rig.run()
    assert rig.heard[op].finish is not None
    assert rig.core.stats().processes[0].num_pages < 5
    rig.send(ResumeProcess("p1"))
    rig.run()
    rig.check()


def test_beams_are_paused_as_well():
    rig = Rig(reply="hello there")
    op = rig.new_id()
    rig.send(Search(op, rig.context("abc"), BeamPlan(num_beams=3, max_tokens=6)))
    rig.step(2)
    rig.send(PauseProcess("p1"))
    num_steps = rig.core.num_steps
    rig.step(3)
    assert rig.core.num_steps == num_steps
    rig.send(ResumeProcess("p1"))
    rig.run()
    assert rig.heard[op].searched


def test_a_paused_process_that_ends_leaves_nothing():
    rig = Rig(reply="hello there")
    rig.generate(rig.context("abcdef"), max_tokens=8, timeout_s=5.0)
    rig.step(2)
    rig.send(PauseProcess("p1"), CloseProcess("p1"))
    rig.run()
    assert rig.core.pool.num_free == rig.core.pool.num_pages
    rig.send(PauseProcess("p1"), ResumeProcess("p1"))  # of a process that is gone: logged, no more
