"""More context than pages: programs of every kind, all at once, end as each of them does alone, and none fails.

Whatever they bid, and whoever goes meanwhile."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pie_engine.config import SchedulingSection
from pie_engine.protocol.credits import PolicyName
from pie_engine.protocol.plan import BeamPlan, Speculation
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import (
    Append,
    CreateContext,
    Release,
    Restore,
    Save,
    Search,
    Truncate,
)
from pie_engine.store.contexts import SavedContexts
from tests.unit.core_rig import PAGE_SIZE, RANDOM, Rig
from tests.unit.crowd import Crowd, Kind, Program

NUM_PAGES = 24
MANUAL = "The manual of everything. "
"""What many prompts begin with: six pages and a half."""


def text_of(number: int, length: int) -> str:
    choice = random.Random(number)
    return "".join(choice.choice("abcdefgh ") for _ in range(length))


def replies(rig: Rig, pid: str, number: int) -> Program:
    """Forks of one prompt, with replies of their own at the same time."""
    ctx = rig.context(MANUAL + text_of(number, 20), seed=number, pid=pid)
    yield [rig.flush(ctx)]
    forks = [rig.fork(ctx, len(rig.tokens(ctx))) for _ in range(3)]
    yield [rig.generate(fork, sampler=RANDOM, max_tokens=25) for fork in forks]
    yield [rig.generate(ctx, sampler=RANDOM, max_tokens=25)]


def passes(rig: Rig, pid: str, number: int) -> Program:
    """A loop of its own, beside a context that it comes back to."""
    kept = rig.context(text_of(number, 40), seed=number, pid=pid)
    ctx = rig.context(MANUAL, seed=number, pid=pid)
    yield [rig.flush(kept)]
    token = number % 200
    for _ in range(12):
        op = rig.forward(ctx, [token], Sampler(), 2)
        yield [op]
        forwarded = rig.heard[op].forwarded
        assert forwarded is not None
        assert forwarded.token is not None
        token = forwarded.token
    rig.send(Truncate(kept, 30), Append(kept, [token]))
    yield [rig.generate(kept, max_tokens=10, speculation=Speculation("lookup", 4))]


def saves(rig: Rig, pid: str, number: int) -> Program:
    """Saves a context, and goes on from what it has saved."""
    ctx = rig.context(MANUAL + text_of(number, 30), seed=number, pid=pid)
    yield [rig.generate(ctx, sampler=RANDOM, max_tokens=9)]
    op, name = rig.new_id(), f"{pid} {number}"
    rig.send(Save(op, ctx, name))
    yield [op]
    tokens = rig.tokens(ctx)[:]
    rig.send(Release(ctx))
    copy = rig.new_id()
    rig.send(CreateContext(copy, pid, number), Append(copy, tokens), Restore(copy, name))
    yield [rig.generate(copy, sampler=RANDOM, max_tokens=9)]


def searches(rig: Rig, pid: str, number: int) -> Program:
    """A beam search, whose beams are contexts, too."""
    op = rig.new_id()
    rig.send(Search(op, rig.context(text_of(number, 50), seed=number, pid=pid), BeamPlan(num_beams=3, max_tokens=12)))
    yield [op]


def large(rig: Rig, pid: str, number: int) -> Program:
    """Takes every page that there is, several times."""
    ctx = rig.context(text_of(number, NUM_PAGES * PAGE_SIZE - 40), seed=number, pid=pid)
    yield [rig.generate(ctx, sampler=RANDOM, max_tokens=40)]


KINDS: list[Kind] = [replies, passes, saves, searches, large]


def doom(rig: Rig, pid: str) -> None:
    """Replies on one prompt that do not end."""
    ctx = rig.context(text_of(rig.new_id(), 40), pid=pid)
    for _ in range(3):
        rig.generate(rig.fork(ctx, 40), sampler=RANDOM)


def run(rig: Rig, num_programs: int, *, at_once: bool, seed: int | None = None) -> Crowd:
    programs = Crowd(rig, KINDS, doom, seed=seed)
    for number in range(num_programs):
        programs.launch(number)
        if not at_once:
            programs.finish()
    programs.finish()
    assert rig.core.pool.num_free == rig.core.pool.num_pages
    return programs


POLICIES: list[PolicyName] = ["market", "fcfs", "priority"]


@pytest.mark.parametrize(
    ("policy", "num_programs", "num_host_pages"),
    [
        ("market", 10, 30),
        *(
            pytest.param(policy, 50, num_slots, marks=pytest.mark.slow)
            for num_slots in (0, 30, 2000)
            for policy in POLICIES
        ),
    ],
)
def test_everything_at_once_ends_as_it_does_alone(
    tmp_path: Path, policy: PolicyName, num_programs: int, num_host_pages: int
):
    roomy = Rig(num_pages=4000, max_batch_sequences=400, saved=SavedContexts(tmp_path / "roomy"))
    alone = run(roomy, num_programs, at_once=False)
    assert sum(alone.most_pages.values()) > 4 * NUM_PAGES
    rig = Rig(
        num_pages=NUM_PAGES,
        num_host_pages=num_host_pages,
        max_batch_tokens=20,
        max_batch_sequences=9,
        saved=SavedContexts(tmp_path / "tight"),
        scheduling=SchedulingSection(policy=policy, max_wait_steps=40),
    )
    assert run(rig, num_programs, at_once=True, seed=5).said == alone.said
    stats = rig.core.stats()
    assert stats.num_preemptions > num_programs // 2
    assert (stats.num_page_returns > 0) == (num_host_pages > 0)
