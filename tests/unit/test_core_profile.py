"""What a core writes down of processes that are profiled, and of no others."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pie_engine.core import profile
from pie_engine.protocol.plan import BeamPlan, Speculation
from pie_engine.protocol.profile import OperationTimes, StepTimes
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import CloseProcess, OpenProcess, Search
from pie_engine.protocol.to_host import Profiled
from tests.unit.core_rig import HOST, PAGE_SIZE, Rig

STEP_US = 100_000
"""The rig's clock moves between the steps, not within."""


class Profiles:
    """A rig whose process `p2` is profiled, and everything that was said of it."""

    def __init__(self, **options: object) -> None:
        self.rig = Rig(**options)  # type: ignore[arg-type]
        self.rig.send(OpenProcess("p2", "test", is_profiled=True))

    def context(self, prompt: str) -> int:
        return self.rig.context(prompt, pid="p2")

    @property
    def said(self) -> list[Profiled]:
        return self.rig.profiled

    @property
    def operations(self) -> list[OperationTimes]:
        return [each for said in self.said for each in said.operations]

    @property
    def steps(self) -> list[StepTimes]:
        return [each for said in self.said for each in said.steps]


def test_nothing_is_said_of_a_process_that_is_not_profiled():
    profiles = Profiles()
    profiles.rig.generate(profiles.rig.context("hello"), max_tokens=3)
    profiles.rig.run()
    assert profiles.said == []


def test_a_plan_has_its_times_in_order():
    profiles = Profiles(max_batch_tokens=8)
    ctx = profiles.context("a prompt of 20 bytes")
    op = profiles.rig.generate(ctx, max_tokens=5)
    profiles.rig.run()
    (times,) = profiles.operations
    assert (times.op, times.ctx, times.kind) == (op, ctx, "plan")
    assert times.queued == times.begun < times.admitted < times.prefilled < times.ended
    assert times.admitted - times.queued == STEP_US
    assert times.prefilled - times.admitted == 2 * STEP_US, "three chunks of at most 8"
    assert times.ended - times.prefilled == 4 * STEP_US
    assert (times.num_prefill, times.num_steps) == (20, 7)
    assert (times.prompt, times.cached, times.completion) == (20, 0, 5)


def test_what_is_behind_another_on_its_context_begins_later():
    profiles = Profiles()
    ctx = profiles.context("hello")
    flush, later = profiles.rig.flush(ctx), profiles.rig.forward(ctx, [1, 2], Sampler())
    profiles.rig.run()
    first, second = profiles.operations
    assert [first.op, second.op] == [flush, later]
    assert [first.kind, second.kind] == ["flush", "pass"]
    assert first.ended == second.begun > second.queued


def test_the_news_come_behind_the_answer():
    profiles = Profiles()
    op = profiles.rig.flush(profiles.context("hello"))
    profiles.rig.core.step()
    answer, news, *_ = profiles.rig.core.take_outgoing()[HOST]
    assert answer.op == op
    assert isinstance(news, Profiled)
    assert (news.pid, news.num_pages, news.page_size) == ("p2", 256, PAGE_SIZE)


def test_steps_say_who_was_in_them():
    profiles = Profiles()
    other = profiles.rig.generate(profiles.rig.context("somebody else"), max_tokens=8)
    profiles.rig.step()
    op = profiles.rig.generate(profiles.context("hello"), max_tokens=3)
    profiles.rig.run()
    assert other != op
    first, second, *_ = profiles.steps
    assert (first.num_prefill, first.num_decode, first.num_sequences, first.mine) == (5, 1, 2, [(op, 5)])
    assert (second.num_prefill, second.num_decode, second.mine) == (0, 2, [(op, 1)])
    assert [step.number for step in profiles.steps] == [2, 3, 4], "none when the process had nothing to run"
    assert first.num_held_pages == 2
    assert first.num_free_pages < 256


def test_pages_are_counted_as_soon_as_others_are_free(monkeypatch):
    counted = []
    monkeypatch.setattr(profile, "distinct_pages", lambda contexts: counted.append(1) or set(range(len(counted))))
    profiles = Profiles()
    profiles.rig.generate(profiles.context("hello"), max_tokens=2 * PAGE_SIZE)
    for _ in range(2 * PAGE_SIZE):
        profiles.rig.step(after_s=0.001)
    held = [step.num_held_pages for step in profiles.steps]
    free = [step.num_free_pages for step in profiles.steps]
    changes = [new != old for old, new in pairwise(free)]
    assert [new != old for old, new in pairwise(held)] == changes
    assert any(changes)
    assert not all(changes)


def test_long_work_is_told_in_parts():
    profiles = Profiles()
    profiles.rig.generate(profiles.context("hello"), max_tokens=150)
    profiles.rig.run()
    assert [len(said.steps) for said in profiles.said] == [64, 64, 22]
    assert [len(said.operations) for said in profiles.said] == [0, 0, 1]


def test_waiting_for_pages_is_timed():
    profiles = Profiles(num_pages=8, prefix_cache="off")
    profiles.rig.generate(profiles.rig.context("x" * 16), max_tokens=12)
    profiles.rig.step()
    profiles.rig.generate(profiles.context("y" * 24), max_tokens=2)
    profiles.rig.run()
    (times,) = profiles.operations
    ((begin, end),) = times.page_waits
    assert times.queued < begin < end <= times.admitted
    assert end - begin >= 8 * STEP_US


def test_forks_say_what_their_parent_had_not_computed():
    profiles = Profiles()
    ctx = profiles.context("hello there")
    before = profiles.rig.fork(ctx, 11)
    profiles.rig.flush(ctx)
    profiles.rig.run()
    after = profiles.rig.fork(ctx, 11)
    profiles.rig.generate(after, max_tokens=1)
    profiles.rig.run()
    forks = [fork for said in profiles.said for fork in said.forks]
    assert [(fork.ctx, fork.child, fork.length, fork.num_uncomputed) for fork in forks] == [
        (ctx, before, 11, 11),
        (ctx, after, 11, 0),
    ]


def test_a_copied_page_is_counted():
    profiles = Profiles()
    ctx = profiles.context("hello there")
    profiles.rig.flush(ctx)
    profiles.rig.run()
    profiles.rig.forward(profiles.rig.fork(ctx, 11), [1], Sampler())
    profiles.rig.run()
    assert [times.num_copies for times in profiles.operations] == [0, 1]


def test_guesses_are_counted():
    profiles = Profiles(reply="abcabcabcabcabcabc")
    profiles.rig.generate(profiles.context("abcabc"), max_tokens=18, speculation=Speculation())
    profiles.rig.run()
    (times,) = profiles.operations
    assert 0 < times.accepted <= times.drafted


def test_what_is_called_off_or_fails_is_over_too():
    profiles = Profiles()
    ctx = profiles.context("hello")
    profiles.rig.stop(profiles.rig.generate(ctx, max_tokens=5))
    profiles.rig.generate(ctx, max_tokens=-1)
    profiles.rig.run()
    assert [bool(times.ended) for times in profiles.operations] == [True, True]


def test_a_beam_search_is_one_operation():
    profiles = Profiles()
    op = profiles.rig.new_id()
    profiles.rig.send(Search(op, profiles.context("hello"), BeamPlan(num_beams=2, max_tokens=3)))
    profiles.rig.run()
    assert [(times.op, times.kind) for times in profiles.operations] == [(op, "search")]
    assert profiles.operations[0].completion > 0


@pytest.mark.parametrize("after", [0, 2])
def test_a_process_may_go_at_any_time(after):
    profiles = Profiles()
    profiles.rig.generate(profiles.context("hello"), max_tokens=5)
    profiles.rig.step(after)
    profiles.rig.send(CloseProcess("p2"))
    profiles.rig.run()
    assert not profiles.rig.core._profiler.is_on
