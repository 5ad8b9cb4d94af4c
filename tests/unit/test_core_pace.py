"""Prompts beside decodes: a step takes about as long as the configuration says, and nobody starves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from pie_engine.config import ModelSection, decode_config
from pie_engine.core.pace import FIRST_CHUNK, LOOK_EVERY, MIN_CHUNK, NUM_LOOKS, Allowance, Pace, Part
from pie_engine.driver.base import Row, RowResult
from pie_engine.driver.fake_script import FakeScript
from pie_engine.errors import InvalidConfig
from tests.unit.core_rig import Rig

Cost = Callable[[Sequence[Row]], float]


def seconds_of(rows: Sequence[Row]) -> float:
    """A model that decodes in 30 ms, and takes 2 ms for a token of a prompt: twice that behind 2,000 others."""
    prompts = (row for row in rows if len(row.tokens) > 1)
    return 0.030 + sum(0.002 * len(row.tokens) * (1 + (row.start + len(row.tokens) / 2) / 2000) for row in prompts)


class TimedRig(Rig):
    """The clock moves by what the steps cost."""

    def __init__(self, cost: Cost = seconds_of, **settings: object) -> None:
        limits = {"num_pages": 4000, "max_batch_tokens": 512, "step_ms": 150.0, **settings}
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
    assert all(0.14 < took_s < 0.16 for took_s, _ in steps[:-1])
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


def test_where_decodes_take_longer_than_a_step_may_prompts_get_three_times_that():
    rig = TimedRig(cost=lambda rows: 0.17 + seconds_of(rows))
    rig.decode(8)
    steps = rig.prefill(2000)
    assert all(0.65 < took_s < 0.95 for took_s, _ in steps[:-1])


def test_the_oldest_prompt_gets_16_tokens_however_long_they_take():
    rig = TimedRig(cost=lambda rows: 1000.0 * sum(len(row.tokens) for row in rows if len(row.tokens) > 1))
    rig.decode(8, num_steps=60)
    assert rig.prefill(400) == [(16000.0, MIN_CHUNK)] * 25


def test_every_now_and_then_a_step_without_prompts_tells_what_decodes_take():
    """Nobody would know otherwise that they have become slower, and how much is left for prompts."""
    slower = 0.0
    rig = TimedRig(cost=lambda rows: slower + seconds_of(rows))
    rig.decode(8)
    slower = 0.17
    first = len(rig.took_s)
    rig.prefill(3500)
    without = [at for at, took_s in enumerate(rig.took_s[first:]) if took_s == pytest.approx(0.2)]
    assert without[:3] == [LOOK_EVERY, 2 * LOOK_EVERY + 1, 3 * LOOK_EVERY + 2]
    assert max(rig.took_s[first : first + without[2]]) < 0.35
    assert max(rig.took_s[first + without[2] :]) > 0.6


def test_one_row_at_a_time_still_serves_prompts():
    rig = TimedRig(max_batch_sequences=1)
    rig.decode(1)
    assert sum(chunk for _, chunk in rig.prefill(1000)) >= 999


def test_younger_prompts_share_what_time_the_older_ones_leave():
    rig = TimedRig()
    rig.decode(4)
    rig.prefill(100)
    ops = [rig.flush(rig.context(f"{index:02d}" * 10)) for index in range(12)]
    first = len(rig.driver.steps)
    rig.go(12)
    assert all(rig.heard[op].is_flushed for op in ops)
    counts = [sum(length for _, length in step if length > 1) for step in rig.driver.steps[first:]]
    assert max(counts) > 40
    assert max(rig.took_s[first:]) < 0.2


def paced(decode_s: float = 0.030, num_decodes: int = 8) -> Pace:
    """150 ms, and what so many decodes take."""
    pace = Pace(0.150)
    for _ in range(NUM_LOOKS):
        pace.learn(num_decodes, [], decode_s)
    return pace


def chunk(pace: Pace, num_decodes: int = 8) -> int:
    allowance = pace.allowance(num_decodes)
    return 0 if allowance is None else allowance.take(0, 512)


def test_a_step_that_something_held_up_changes_nothing():
    pace = paced()
    for index in range(4):
        pace.learn(8, [Part(index * 48, 48)], 0.030 + 48 * 0.002)
    before = chunk(pace)
    assert before == pytest.approx(60, abs=1)
    pace.learn(8, [Part(0, 48)], 30.0)
    pace.learn(8, [], 10.0)
    assert chunk(pace) == before


def test_what_has_really_changed_is_known_after_three_steps():
    pace = Pace(0.150)
    for _ in range(20):
        pace.learn(0, [Part(0, 100)], 0.2)
    for _ in range(3):
        pace.learn(0, [Part(0, 100)], 0.8)
    assert chunk(pace, 0) == int(0.150 / 0.008)


def test_it_begins_with_a_guess_and_knows_after_one_step():
    pace = paced()
    assert chunk(pace) == FIRST_CHUNK
    pace.learn(8, [Part(0, 64)], 0.030 + 0.064)
    assert chunk(pace) == pytest.approx(120, abs=1)


def test_two_steps_without_prompts_come_first():
    pace = Pace(0.150)
    pace.learn(0, [Part(0, 100)], 0.1)
    for took_s in (20.0, 0.030):
        assert chunk(pace) == 0
        pace.learn(8, [], took_s)
    assert chunk(pace) == pytest.approx(120, abs=1)
    # For many more decodes, and for few, it has to be seen anew.
    assert chunk(pace, 15) > 0
    assert chunk(pace, 7) == chunk(pace, 16) == 0


def test_a_few_tokens_say_nothing_of_what_one_costs():
    pace = paced()
    pace.learn(8, [Part(0, 10)], 0.5)
    assert chunk(pace) == FIRST_CHUNK


def test_decodes_that_were_measured_in_slower_times_do_not_make_prompts_free():
    pace = paced(decode_s=0.100)
    pace.learn(8, [Part(0, 100)], 0.080)
    assert chunk(pace) == 512
    pace = paced(decode_s=0.100)
    pace.learn(8, [Part(0, 20)], 0.080)
    assert chunk(pace) == pytest.approx(300, abs=1)


def test_a_chunk_runs_through_classes_of_context_at_their_own_costs():
    allowance = Allowance(1.0, {0: 0.001, 1: 0.002})
    assert allowance.take(0, 2000) == 256 + (1000 - 256) // 2
    assert allowance.take(0, 100) == 0
    allowance = Allowance(1.0, {0: 0.001, 4: 0.004})
    assert allowance.take(0, 100) == 100
    assert allowance.take(3000, 100) == 100
    assert allowance.take(3000, 500) == 125


def test_steps_that_take_no_time_are_as_big_as_they_can_be():
    pace = paced(decode_s=0.0)
    pace.learn(8, [Part(0, 64)], 0.0)
    assert chunk(pace) == 512


def test_the_time_of_a_step_is_150_ms_and_not_negative():
    assert ModelSection().step_ms == 150.0
    with pytest.raises(InvalidConfig, match="step_ms"):
        decode_config({"models": [{**msgspec.to_builtins(ModelSection()), "step_ms": -1}]})
