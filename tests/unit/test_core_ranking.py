"""Who is looked at in a step that does not hold all."""

from __future__ import annotations

from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pie_engine.core.ranking import Ranking, Ready
from pie_engine.driver.fake_script import FakeScript
from pie_engine.kv.context import KvContext
from pie_engine.protocol.to_core import OpenProcess
from tests.thoroughness import count
from tests.unit.core_rig import Rig


def operations(number: int) -> list:
    return [SimpleNamespace(number=each, rank=-1, context=SimpleNamespace(row=10 + each)) for each in range(number)]


def ranking_of(all_of_them: list, order: list[int], with_pages: set[int]) -> Ranking:
    rows = np.array([each.context.row for each in all_of_them])
    return Ranking(all_of_them, rows, np.array(order), np.array([place in with_pages for place in order]))


def test_newcomers_are_apart_and_have_the_rank_of_the_one_that_they_go_before():
    ranking = ranking_of(operations(6), [3, 0, 5, 1, 2, 4], {0, 1, 2})
    assert [each.number for each in ranking.holders(np.arange(3))] == [0, 1, 2]
    newcomers = ranking.newcomers()
    assert [(each.number, each.rank) for each in (next(newcomers), next(newcomers))] == [(3, 0), (5, 1)]
    assert ranking.unseen.tolist() == [14]
    assert next(newcomers).rank == 3
    assert ranking.unseen.tolist() == []


def test_who_has_lost_its_pages_does_not_grow():
    all_of_them = operations(5)
    ranking = ranking_of(all_of_them, [0, 1, 2, 3, 4], {0, 1, 2, 3})
    [newcomer] = ranking.newcomers()
    assert ranking.num_growing_before(newcomer, []) == 4
    assert ranking.num_growing_before(newcomer, all_of_them[1:3]) == 2


def test_who_has_lost_its_pages_is_taken_out_of_those_that_are_ready():
    all_of_them = operations(6)
    ranking = ranking_of(all_of_them, [5, 4, 3, 2, 1, 0], {0, 1, 2, 3, 5})
    ready, ranks = [all_of_them[5], all_of_them[2], all_of_them[0]], np.array([0, 2, 4])
    lost = [all_of_them[0], all_of_them[1], all_of_them[5]]
    taken, left = ranking.take_out(lost, ready, ranks)
    assert [(each.number, each.rank) for each in taken] == [(5, 0), (0, 4)]
    assert [each.number for each in ready] == [2]
    assert left.tolist() == [2]
    taken, left = ranking.take_out(lost, ready, left)
    assert (taken, left.tolist()) == ([], [2])


@pytest.mark.parametrize("num_rows", [2, 20])
def test_decodes_are_not_looked_at_before_their_pages_are_full(num_rows: int, monkeypatch: pytest.MonkeyPatch):
    """Whether all have a place or some wait for one, where pages lack or places do."""
    num_pages = 3000 if num_rows == 2 else 13
    rig = Rig(script=FakeScript(max_context_tokens=512), num_pages=num_pages, max_batch_sequences=num_rows)
    num_programs, num_looks = 8, 0
    rig.send(*(OpenProcess(f"q{number}", "test") for number in range(num_programs)))
    contexts = [rig.context(f"{number} abc", pid=f"q{number}") for number in range(num_programs)]
    for ctx in contexts:
        rig.generate(ctx, max_tokens=40, ignore_eos=True)
    for _ in range(10):
        rig.step(after_s=0.1)
    look = KvContext.num_decodable.fget

    def counted(kv: KvContext) -> int:
        nonlocal num_looks
        num_looks += 1
        return look(kv)

    monkeypatch.setattr(KvContext, "num_decodable", property(counted))
    num_ran = rig.core.counts.num_sequences
    for _ in range(24):
        rig.step(after_s=0.1)
    num_ran = rig.core.counts.num_sequences - num_ran
    assert num_looks
    assert num_looks < num_ran / 2
    rig.run(max_steps=2000)
    rig.check()


def test_who_is_said_to_have_more_room_than_it_has_is_a_violation():
    rig = Rig(num_pages=20)
    ctx = rig.context("abc")
    rig.generate(ctx, max_tokens=8, ignore_eos=True)
    rig.step()
    claims = rig.core._scheduler.claims
    [context] = [each for each in rig.core._scheduler.contexts.values() if each.ctx == ctx]
    claims.has_room(context, context.kv.num_decodable)
    assert not rig.core.check_integrity()
    claims.has_room(context, context.kv.num_decodable + 1)
    assert any("no room" in each for each in rig.core.check_integrity())


@given(ranks=st.sets(st.integers(0, 30)), others=st.sets(st.integers(0, 30)), num_first=st.integers(0, 40))
@settings(max_examples=count(25, 1000), deadline=None)
def test_those_that_grow_have_their_places_among_the_others(ranks, others, num_first):
    others -= ranks
    mine = [SimpleNamespace(rank=rank) for rank in sorted(others)]
    ready = Ready([], np.zeros(0, np.int64), np.array(sorted(ranks), np.int64))
    expected = sum(rank in others for rank in sorted(ranks | others)[:num_first])
    assert ready.num_among(mine, num_first) == expected


@pytest.mark.parametrize("num_rows", [2, 5])
def test_who_waits_for_a_place_and_is_steered_or_forked_meanwhile_goes_on_as_alone(num_rows: int):
    script = FakeScript(max_context_tokens=512)
    rig, alone = Rig(script=script, num_pages=3000, max_batch_sequences=num_rows), Rig(script=script, num_pages=3000)
    said = []
    for each in (rig, alone):
        each.send(*(OpenProcess(f"q{number}", "test") for number in range(12)))
        contexts = [each.context(f"{number} abc", pid=f"q{number}") for number in range(12)]
        ops = [each.generate(ctx, max_tokens=30, ignore_eos=True) for ctx in contexts]
        forks = []
        for step in range(40):
            each.step(after_s=0.1)
            each.take_all()
            if step in (20, 25):
                forks += [each.generate(each.fork(ctx, 4), max_tokens=9, ignore_eos=True) for ctx in contexts[:6]]
        each.run(max_steps=2000)
        each.check()
        said.append([each.heard[op].ids for op in ops + forks])
    assert said[0] == said[1]
    assert all(said[0])
