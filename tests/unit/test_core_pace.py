"""Prompts beside decodes: a step takes about as long as the configuration says, and nobody starves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from pie_engine.config import ModelSection, decode_config
from pie_engine.core.pace import FIRST_CHUNK, MIN_CHUNK, Allowance, Pace, Part
from pie_engine.driver.base import Row, RowResult
from pie_engine.driver.fake_script import FakeScript
from pie_engine.errors import InvalidConfig
from tests.unit.test_core_basics import Rig

Cost = Callable[[Sequence[Row]], float]


def seconds_of(rows: Sequence[Row]) -> float:
    """A model that decodes in 30 ms, and takes 2 ms for a token of a prompt: twice that behind 2,000 others."""
    prompts = (row for row in rows if len(row.tokens) > 1)
    return 0.030 + sum(0.002 * len(row.tokens) * (1 + (row.start + len(row.tokens) / 2) / 2000) for row in prompts)


class TimedRig(Rig):
    """The clock moves by what the steps cost."""

    def __init__(self, cost: Cost = seconds_of, **settings: object) -> None:
        limits = {"num_pages": 4000, "max_batch_tokens": 512, **settings}
        super().__init__(script=FakeScript(max_context_tokens=8192), **limits)  # type: ignore[arg-type]
        self.took_s: list[float] = []
        execute = self.driver.execute

        def timed(rows: Sequence[Row]) -> list[RowResult]:
            self.took_s.append(cost(rows))
            self.now += self.took_s[-1]
            return execute(rows)

        self.driver.execute = timed  # type: ignore[method-assign]

    def decode(self, count: int, num_steps: int = 20) -> None:
        """So many plans that go on and on, of which each has decoded for a while."""
        for index in range(count):
            self.generate(self.context(f"{index}" * 40), max_tokens=4000, chunk_ms=0, ignore_eos=True)
        self.go(num_steps)

    def go(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.step()
            self.take_all()

    def prefill(self, num_tokens: int) -> list[tuple[float, int]]:
        """One more prompt: of each step that it took part in, the time and its tokens."""
        ctx = self.context("x" * num_tokens)
        first, op = len(self.took_s), self.flush(ctx)
        while op not in self.heard:
            self.go(1)
        chunks = [sum(length for _, length in step if length > 1) for step in self.driver.steps[first:]]
        return [(took_s, chunk) for took_s, chunk in zip(self.took_s[first:], chunks, strict=True) if chunk]


def test_a_long_prompt_leaves_the_decoders_their_pace():
    rig = TimedRig()
    rig.decode(8)
    steps = rig.prefill(3000)
    assert sum(chunk for _, chunk in steps) == 3000
    # The first chunk of each class of context is a guess; the others hit the time, and do not waste it.
    assert max(took_s for took_s, _ in steps) < 0.25
    assert all(0.12 < took_s < 0.18 for took_s, _ in steps[len(steps) // 2 : -1])
    # Chunks get smaller as the context gets longer.
    assert steps[1][1] > 1.5 * steps[-2][1]


def test_without_decoders_a_step_is_as_big_as_it_can_be():
    rig = TimedRig()
    assert [chunk for _, chunk in rig.prefill(2000)] == [512, 512, 512, 464]


def test_the_time_of_a_step_can_be_left_free():
    rig = TimedRig(step_ms=0.0)
    rig.decode(8)
    assert [chunk for _, chunk in rig.prefill(2000)] == [504, 504, 504, 488]


def test_a_program_that_runs_pass_after_pass_counts_while_it_thinks():
    rig = TimedRig()
    ctx = rig.context("abc")
    rig.prefill(600)  # so that the cost is known
    rig.forward(ctx, [1] * 40)
    rig.go(1)
    slow = rig.flush(rig.context("y" * 2000))
    first = len(rig.took_s)
    while slow not in rig.heard:
        rig.forward(ctx, [5])
        rig.go(2)  # in the second one its answer is on its way to it
    assert max(rig.took_s[first:]) < 0.25
    assert max(length for step in rig.driver.steps[first:] for _, length in step) < 120


def test_prompts_get_on_even_where_decodes_take_longer_than_a_step_may():
    rig = TimedRig(cost=lambda rows: 0.27 + seconds_of(rows))
    rig.decode(8)
    steps = rig.prefill(1000)
    # As long for the prompt as for the decodes.
    assert all(0.5 < took_s < 0.7 for took_s, _ in steps[3:-1])


def test_a_prompt_of_n_tokens_takes_n_16_steps_at_the_worst():
    rig = TimedRig(cost=lambda rows: 1000.0 * sum(len(row.tokens) for row in rows))
    rig.decode(8)
    steps = rig.prefill(400)
    assert len(steps) == -(-400 // MIN_CHUNK)


def test_younger_prompts_share_what_time_the_older_ones_leave():
    rig = TimedRig()
    rig.decode(4)
    ops = [rig.flush(rig.context(f"{index:02d}" * 10)) for index in range(12)]
    first = len(rig.driver.steps)
    rig.go(12)
    assert all(rig.heard[op].is_flushed for op in ops)
    counts = [sum(length for _, length in step if length > 1) for step in rig.driver.steps[first:]]
    assert max(counts) > 40
    assert max(rig.took_s[first:]) < 0.2


def test_a_step_that_something_held_up_changes_nothing():
    pace = Pace(0.150)
    for index in range(4):
        pace.learn(8, [], 0.030)
        pace.learn(8, [Part(index * 48, 48)], 0.030 + 48 * 0.002)
    before = pace.allowance(8).take(0, 512)
    pace.learn(8, [Part(0, 48)], 30.0)
    pace.learn(8, [], 10.0)
    assert pace.allowance(8).take(0, 512) == before == pytest.approx(60, abs=1)


def test_what_has_really_changed_is_known_after_three_steps():
    pace = Pace(0.150)
    for _ in range(20):
        pace.learn(0, [Part(0, 100)], 0.2)
    for _ in range(3):
        pace.learn(0, [Part(0, 100)], 0.8)
    assert pace.allowance(0).take(0, 512) == int(0.150 / 0.008)


def test_a_guess_comes_first_and_one_step_is_enough_to_know():
    pace = Pace(0.150)
    assert pace.allowance(0).take(0, 512) == FIRST_CHUNK
    pace.learn(0, [Part(0, 64)], 0.064)
    assert pace.allowance(0).take(0, 512) == 150


@pytest.mark.parametrize("shares", [(8, [Part(0, 10)], 0.5), (8, [Part(0, 100)], 0.035), (8, [Part(0, 100)], 0.001)])
def test_what_cannot_be_told_from_the_decodes_is_not_learned_from(shares: tuple[int, list[Part], float]):
    pace = Pace(0.150)
    pace.learn(8, [], 0.030)
    pace.learn(*shares)
    assert pace.allowance(8).take(0, 512) == FIRST_CHUNK


def test_fewer_decodes_are_not_charged_what_more_of_them_took():
    pace = Pace(0.150)
    pace.learn(64, [], 0.120)
    pace.learn(2, [Part(0, 100)], 0.2)
    assert pace.allowance(2).take(0, 512) == 75
    pace.learn(2, [], 0.010)
    assert pace.allowance(3).take(0, 512) == pytest.approx(70, abs=1)
    assert pace.allowance(63).take(0, 512) == pytest.approx(70, abs=1)


def test_a_chunk_runs_through_classes_of_context_at_their_own_costs():
    allowance = Allowance(1.0, {0: 0.001, 1: 0.002})
    assert allowance.take(0, 2000) == 256 + (1000 - 256) // 2
    assert allowance.take(0, 100) == 0
    allowance = Allowance(1.0, {0: 0.001, 4: 0.004})
    assert allowance.take(0, 100) == 100
    assert allowance.take(3000, 100) == 100
    assert allowance.take(3000, 500) == 125


def test_steps_that_take_no_time_are_as_big_as_they_can_be():
    pace = Pace(0.150)
    pace.learn(8, [], 0.0)
    pace.learn(8, [Part(0, 64)], 0.0)
    assert pace.allowance(8).take(0, 10_000) == 10_000


def test_the_time_of_a_step_is_150_ms_and_not_negative():
    assert ModelSection().step_ms == 150.0
    with pytest.raises(InvalidConfig, match="step_ms"):
        decode_config({"models": [{**msgspec.to_builtins(ModelSection()), "step_ms": -1}]})
