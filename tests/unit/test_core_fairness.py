"""Steps that cannot hold all are shared between programs, however many contexts each of them has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pie_engine.core.fairness import FairQueue
from pie_engine.protocol.to_core import CreateContext, OpenProcess
from tests.thoroughness import count
from tests.unit.core_rig import Rig

# The queue.


class Line:
    """Owners with claims of size 1 that come again as soon as they are served: decodes."""

    def __init__(self, num_claims: dict[str, int], room: int) -> None:
        self.queue, self.room = FairQueue(1), room
        self.claims = [(owner, index) for owner, number in num_claims.items() for index in range(number)]
        self.served: Counter[str] = Counter()
        self.last = dict.fromkeys(self.claims, 0)
        self.longest = 0
        self.num_steps = 0

    def step(self) -> None:
        self.num_steps += 1
        order = self.queue.order(self.claims, [owner for owner, _ in self.claims], [1] * len(self.claims))
        assert sorted(order) == list(range(len(self.claims)))
        for index in order[: self.room]:
            claim = self.claims[index]
            self.served[claim[0]] += 1
            self.longest = max(self.longest, self.num_steps - self.last[claim])
            self.last[claim] = self.num_steps
            self.queue.serve(claim, 1)


@settings(max_examples=count(20, 200))
@given(numbers=st.lists(st.integers(1, 40), min_size=2, max_size=8), room=st.integers(1, 12))
def test_owners_get_the_same_however_many_claims_they_have(numbers: list[int], room: int):
    """Max-min fair: nobody has less than another one who had as much to claim, but for one turn."""
    line = Line({f"owner {index}": number for index, number in enumerate(numbers)}, min(room, sum(numbers) - 1))
    for _ in range(60):
        line.step()
    fair = _max_min(numbers, line.room)
    for index, share in enumerate(fair):
        assert line.served[f"owner {index}"] == pytest.approx(60 * share, abs=2 + numbers[index])
    # A place in line is passed by what is before it only: all others once for each claim of its own owner.
    most_before = max(numbers) * len(numbers) + sum(numbers)
    assert line.num_steps - min(line.last.values()) <= most_before // line.room + 2
    assert line.longest <= most_before // line.room + 2


def _max_min(wanted: Sequence[int], room: float) -> list[float]:
    """What each owner gets of every step: as much as the others, or all that it can use."""
    shares = [0.0] * len(wanted)
    left = sorted(range(len(wanted)), key=wanted.__getitem__)
    while left:
        index = left[0]
        shares[index] = min(wanted[index], room / len(left))
        room -= shares[index]
        left.pop(0)
    return shares


def test_who_was_away_has_saved_nothing_and_owes_nothing():
    line = Line({"here": 3}, 1)
    line.claims.append(("away", 0))
    for _ in range(10):
        line.claims = [claim for claim in line.claims if claim[0] == "here"]
        line.step()
    line.claims.append(("away", 0))
    line.last[("away", 0)] = line.num_steps
    before = line.served.copy()
    for _ in range(10):
        line.step()
    assert line.served["away"] == 5
    assert line.served["here"] - before["here"] == 5


def test_a_claim_keeps_its_turn_for_the_quantum():
    queue = FairQueue(100)
    claims, owners, sizes = ["long", "short"], ["a", "b"], [1000, 30]
    assert queue.order(claims, owners, sizes) == [0, 1]
    queue.serve("long", 99)
    assert queue.order(claims, owners, sizes) == [0, 1]
    queue.serve("long", 1)
    assert queue.order(claims, owners, sizes) == [1, 0]


def test_nothing_is_remembered_of_a_time_in_which_all_were_served():
    queue = FairQueue(1)
    queue.order(["x", "y", "z"], ["a", "a", "b"], [1, 1, 1])
    queue.serve("x", 1)
    assert queue.is_busy
    queue.clear()
    assert not queue.is_busy
    assert queue.order(["x", "z"], ["a", "b"], [1, 1]) == [0, 1]


def test_what_has_left_the_line_is_forgotten():
    queue = FairQueue(10)
    for number in range(50):
        queue.order([f"claim {number}", "stays"], [f"owner {number}", "b"], [10, 10])
    assert len(queue._starts) == 2
    assert len(queue._ends) <= 51


# The core.


def open_others(rig: Rig, *pids: str) -> None:
    rig.send(*(OpenProcess(pid, "test") for pid in pids))


def go(rig: Rig, num_steps: int) -> None:
    for _ in range(num_steps):
        rig.step(after_s=0.1)
        rig.take_all()


def tokens_of(rig: Rig, ops: Sequence[int]) -> int:
    return sum(len(rig.heard[op].ids) for op in ops if op in rig.heard)


@pytest.mark.parametrize(("num_rows", "num_singles"), [(2, 1), (4, 7)])
def test_a_program_with_many_forks_gets_as_much_as_one_with_a_single_context(num_rows: int, num_singles: int):
    rig = Rig(num_pages=3000, max_batch_sequences=num_rows, max_batch_tokens=512)
    singles = [f"single {number}" for number in range(num_singles)]
    open_others(rig, *singles)
    ctx = rig.context("many")
    rig.flush(ctx)
    rig.run()
    forks = [rig.generate(rig.fork(ctx, 4), ignore_eos=True, chunk_ms=0) for _ in range(1000)]
    ops = [rig.generate(rig.context("one", pid=pid), ignore_eos=True, chunk_ms=0) for pid in singles]
    go(rig, 20)  # prompts
    before = {op: tokens_of(rig, [op]) for op in ops}
    many = tokens_of(rig, forks)
    go(rig, 200)
    fair = 200 * min(num_rows / (num_singles + 1), 1)
    for op in ops:
        assert tokens_of(rig, [op]) - before[op] == pytest.approx(fair, rel=0.05)
    assert tokens_of(rig, forks) - many == pytest.approx(200 * num_rows - fair * num_singles, rel=0.05)


def test_a_program_with_many_prompts_does_not_keep_anothers_prompt_waiting():
    rig = Rig(num_pages=3000, max_batch_tokens=50)
    open_others(rig, "p2")
    flood = [rig.flush(rig.context(f"{number:05} " * 10)) for number in range(100)]
    go(rig, 3)
    op = rig.flush(rig.context("y" * 100, pid="p2"))
    go(rig, 4)
    assert rig.heard[op].is_flushed
    rig.run(max_steps=300)
    assert all(rig.heard[each].is_flushed for each in flood)


def test_prompts_of_equal_programs_run_one_after_the_other():
    rig = Rig(num_pages=3000, max_batch_tokens=50)
    open_others(rig, "p2", "p3")
    ops = [rig.flush(rig.context(pid * 50, pid=pid)) for pid in ("p1", "p2", "p3")]
    go(rig, 4)
    assert [op in rig.heard for op in ops] == [True, True, False]


def test_a_very_long_prompt_lets_short_ones_pass():
    rig = Rig(num_pages=3000, max_batch_tokens=50)
    open_others(rig, "p2")
    long = rig.flush(rig.context("x" * 1000))
    go(rig, 1)
    short = rig.flush(rig.context("y" * 40, pid="p2"))
    go(rig, 5)
    assert rig.heard[short].is_flushed
    assert long not in rig.heard


def test_where_there_are_no_pages_for_all_the_oldest_is_not_overtaken():
    rig = Rig(num_pages=40, max_batch_tokens=50)
    open_others(rig, "p2", "p3")
    first = rig.flush(rig.context("x" * 150))
    rest = [rig.flush(rig.context(f"{number}" * 60, pid=f"p{number % 2 + 2}")) for number in range(8)]
    go(rig, 3)
    assert rig.heard[first].is_flushed
    rig.run()
    assert all(rig.heard[op].is_flushed for op in rest)


def test_contexts_of_a_closed_program_leave_the_line():
    rig = Rig(max_batch_sequences=1)
    open_others(rig, "p2")
    kept = rig.generate(rig.context("a"), max_tokens=20)
    ctx = rig.new_id()
    rig.send(CreateContext(ctx, "p2", 1))
    go(rig, 3)
    assert kept in rig.heard
    rig.run()
    assert not rig.core._scheduler._decodes.is_busy
