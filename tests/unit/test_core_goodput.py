"""A draft model and those who decode beside its plans: it writes where all together gain, and within a step's time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pie_engine.core.goodput import most_passes
from pie_engine.driver.base import Row, RowResult
from pie_engine.driver.fake_script import FakeScript
from pie_engine.protocol.plan import MAX_DRAFT_TOKENS, Speculation
from tests.unit.test_core_pace import TimedRig, seconds_of

MODEL = Speculation("model", 8)
STEP_S = 0.030
"""What a step of decodes takes in `TimedRig`."""


def cost(rows: Sequence[Row]) -> float:
    """As `TimedRig` has it, but guesses are checked for nothing."""
    return seconds_of([row for row in rows if not row.draft_uniforms])


class DraftedRig(TimedRig):
    """A draft model that is always right, and takes `pass_s` for a pass and 0.3 ms for a token that it reads."""

    def __init__(self, pass_s: float, **settings: object) -> None:
        super().__init__(cost, draft=FakeScript(max_context_tokens=8192), num_draft_pages=4000, **settings)
        execute = self.draft_driver.execute
        self.guessed_s = [0.0]
        """Of each pass."""

        def timed(rows: Sequence[Row]) -> list[RowResult]:
            num_read = sum(len(row.tokens) for row in rows if len(row.tokens) > 1)
            self.guessed_s.append(pass_s + 0.0003 * num_read)
            self.now += self.guessed_s[-1]
            return execute(rows)

        self.draft_driver.execute = timed  # type: ignore[method-assign]

    def guess(self, count: int, prompt: str = "guess") -> list[int]:
        """So many plans that have the draft model guess."""
        plan = {"speculation": MODEL, "chunk_ms": 0, "ignore_eos": True, "max_tokens": 4000}
        return [self.generate(self.context(f"{index}{prompt}"), **plan) for index in range(count)]

    def gaps_s(self, num_steps: int) -> list[float]:
        """How long each of the next steps takes, with the guesses for it."""
        gaps = []
        for _ in range(num_steps):
            began = self.now
            self.go(1)
            gaps.append(self.now - began)
        return gaps

    @property
    def num_drafted(self) -> int:
        return self.core.stats().processes[0].num_drafted


def test_one_program_that_guesses_does_not_hold_up_seven_that_do_not():
    rig = DraftedRig(pass_s=0.008)
    rig.decode(7)
    rig.guess(1)
    rig.go(5)  # until both costs are known
    before = rig.num_drafted
    assert all(gap == pytest.approx(STEP_S) for gap in rig.gaps_s(30))
    assert rig.num_drafted == before


def test_alone_it_guesses_whatever_a_pass_takes():
    rig = DraftedRig(pass_s=0.100)
    rig.guess(1)
    rig.go(20)
    assert rig.num_drafted > 100


def test_it_guesses_again_when_the_others_have_ended():
    rig = DraftedRig(pass_s=0.008)
    others = [rig.generate(rig.context(f"{index}"), max_tokens=40, ignore_eos=True, chunk_ms=0) for index in range(7)]
    rig.guess(1)
    while any(rig.heard.get(op) is None or rig.heard[op].finish is None for op in others):
        rig.go(1)
    before = rig.num_drafted
    rig.go(5)
    assert rig.num_drafted > before + 20


def test_many_that_guess_well_may_hold_up_one_but_not_for_longer_than_a_step_may_take():
    rig = DraftedRig(pass_s=0.012, step_ms=100.0)
    rig.decode(1)
    rig.guess(3)
    rig.go(12)
    before = rig.num_drafted
    gaps = rig.gaps_s(20)
    assert rig.num_drafted == before + 20 * 3 * 5, "five passes of 12 ms"
    assert max(gaps) < 0.1


def test_a_long_prompt_is_read_in_chunks_that_a_step_has_time_for():
    rig = DraftedRig(pass_s=0.001)
    rig.decode(1)
    rig.guess(3)
    rig.go(10)
    rig.generate(rig.context("x" * 1000), max_tokens=400, speculation=MODEL, chunk_ms=0, ignore_eos=True)
    first = len(rig.guessed_s)
    assert max(rig.gaps_s(40)) < 0.2
    assert 0.1 < max(rig.guessed_s[first:]) < 0.15, "it is read, a part at a time"


def test_with_free_steps_only_the_gain_counts():
    assert most_passes([0.9] * 3, 1, step_s=0.03, pass_s=0.02, limit_s=0.15) == 6
    assert most_passes([0.9] * 3, 1, step_s=0.03, pass_s=0.02, limit_s=0.0) == MAX_DRAFT_TOKENS
    assert most_passes([0.9], 3, step_s=0.03, pass_s=0.02, limit_s=0.0) == 0


def test_where_a_step_takes_longer_than_it_may_it_may_become_twice_as_long():
    assert most_passes([0.9] * 3, 1, step_s=0.4, pass_s=0.1, limit_s=0.15) == 4


@pytest.mark.parametrize("unknown", [{"step_s": 0.0}, {"pass_s": 0.0}])
def test_what_is_not_known_limits_nothing(unknown: dict[str, float]):
    assert most_passes([0.5], 7, **({"step_s": 0.03, "pass_s": 0.02, "limit_s": 0.15} | unknown)) == MAX_DRAFT_TOKENS


def test_it_pays_from_where_all_rows_get_more_tokens_a_second():
    """Of 1 + n rows one guesses right: a pass must take less than a (1 + n)th of the step."""
    for num_others in (1, 3, 9):
        even_s = STEP_S / (1 + num_others)
        costs = {"step_s": STEP_S, "limit_s": 0.15}
        assert most_passes([1.0], num_others, pass_s=0.99 * even_s, **costs) > 0
        assert most_passes([1.0], num_others, pass_s=1.01 * even_s, **costs) == 0
