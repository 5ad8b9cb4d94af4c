"""More context than pages on a real model, under the market: every program says, bit for bit, what it says alone.

Bids change all the time, programs are paused, away and killed meanwhile, and host memory holds a part of what moves.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from pie_engine.config import SchedulingSection
from pie_engine.driver.cpu import CpuDriver
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import BeamPlan, Speculation
from pie_engine.protocol.sampling import GREEDY, Probes, Sampler
from pie_engine.protocol.to_core import (
    Append,
    CreateContext,
    Forward,
    Search,
    SetAway,
    Truncate,
)
from tests.unit.core_rig import Rig
from tests.unit.crowd import Crowd, Kind, Program

PAGE_SIZE, NUM_PAGES = 16, 24
MANUAL = [300 + 7 * index % 1500 for index in range(70)]
"""What many prompts begin with."""
SAMPLERS = [GREEDY, Sampler(temperature=0.8, top_p=0.9), Sampler(temperature=1.2, top_k=40), Sampler(temperature=1.0)]
LOOK = Probes(top_k=3, entropy=True)


def tokens_of(number: int, length: int) -> list[int]:
    choice = random.Random(number)
    return [choice.randrange(300, 2000) for _ in range(length)]


def opened(rig: Rig, pid: str, number: int, tokens: list[int]) -> int:
    ctx = rig.new_id()
    rig.send(CreateContext(ctx, pid, number), Append(ctx, tokens))
    return ctx


def reply(rig: Rig, ctx: int, number: int, num_tokens: int, **more: object) -> int:
    sampler = SAMPLERS[number % len(SAMPLERS)]
    return rig.generate(
        ctx, sampler=sampler, max_tokens=num_tokens, ignore_eos=True, logprobs=True, top_logprobs=2, **more
    )


def forks(rig: Rig, pid: str, number: int) -> Program:
    """Replies on forks of one prompt, at the same time."""
    ctx = opened(rig, pid, number, MANUAL + tokens_of(number, 30))
    yield [rig.flush(ctx)]
    children = [rig.fork(ctx, 100) for _ in range(3)]
    yield [reply(rig, child, place, 24) for place, child in enumerate([ctx, *children])]


def passes(rig: Rig, pid: str, number: int) -> Program:
    """A loop of its own that looks at what the model says, beside a context that it comes back to."""
    kept, ctx = (opened(rig, pid, number, [*start, *tokens_of(number, 25)]) for start in ([], MANUAL))
    yield [rig.flush(kept)]
    token = 300 + number
    for _ in range(14):
        op = rig.new_id()
        rig.send(Forward(op, ctx, [token], SAMPLERS[number % 3], LOOK))
        yield [op]
        forwarded = rig.heard[op].forwarded
        assert forwarded is not None
        assert forwarded.token is not None
        token = forwarded.token
    rig.send(Truncate(kept, 20), Append(kept, [token]))
    yield [reply(rig, kept, number, 15, speculation=Speculation("lookup", 4))]


def talks(rig: Rig, pid: str, number: int) -> Program:
    """Three turns; between them another context has its reply, and this one is away."""
    ctx, tool = opened(rig, pid, number, MANUAL), opened(rig, pid, number, tokens_of(-number, 40))
    for turn in range(3):
        rig.send(Append(ctx, tokens_of(100 * turn + number, 25)))
        yield [reply(rig, ctx, number + turn, 20)]
        rig.send(SetAway(ctx, True))
        yield [reply(rig, tool, number + turn, 15)]


def windows(rig: Rig, pid: str, number: int) -> Program:
    """Forgets as it goes, so that it never has all its pages."""
    ctx = opened(rig, pid, number, tokens_of(number, 90))
    yield [reply(rig, ctx, number, 70, window=50, sinks=4)]


def searches(rig: Rig, pid: str, number: int) -> Program:
    """A beam search, whose beams are contexts, too."""
    op, ctx = rig.new_id(), opened(rig, pid, number, tokens_of(number, 60))
    rig.send(Search(op, ctx, BeamPlan(num_beams=3, max_tokens=14, ignore_eos=True)))
    yield [op]


def large(rig: Rig, pid: str, number: int) -> Program:
    """Takes every page that there is."""
    ctx = opened(rig, pid, number, tokens_of(number, PAGE_SIZE * NUM_PAGES - 50))
    yield [reply(rig, ctx, number, 50)]


KINDS: list[Kind] = [forks, passes, talks, windows, searches, large]


def doom(rig: Rig, pid: str) -> None:
    """Two long replies on one prompt."""
    ctx = opened(rig, pid, 1, MANUAL + tokens_of(rig.new_id(), 20))
    for _ in range(2):
        reply(rig, rig.fork(ctx, 90), 1, 200)


def rig_of(num_pages: int, **settings: Any) -> Rig:
    folder = resolve("pie-tiny")
    driver = CpuDriver.load(folder, num_threads=1, dtype="float32", deterministic=True, num_pages=num_pages)
    return Rig(driver=driver, tokenizer=Tokenizer.load(folder), num_pages=num_pages, **settings)


@pytest.mark.parametrize(
    ("num_programs", "seed", "num_host_pages", "most_tokens"),
    [
        (8, 1, 26, 2),
        pytest.param(48, 2, 26, 2.5, marks=pytest.mark.slow),
        pytest.param(48, 3, 400, 1.25, marks=pytest.mark.slow),
        pytest.param(48, 4, 0, 4, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
def test_everything_at_once_on_a_real_model_ends_bit_for_bit_as_alone(
    num_programs: int, seed: int, num_host_pages: int, most_tokens: float
) -> None:
    """`most_tokens`: that are run, in those of the same programs alone."""
    alone = Crowd(rig_of(200, prefix_cache="off"), KINDS, doom)
    for number in range(num_programs):
        alone.launch(number)
        alone.finish()
    assert sum(alone.most_pages.values()) > 4 * NUM_PAGES
    scheduling = SchedulingSection(max_wait_steps=40, admission_quota_pages=8)
    rig = rig_of(
        NUM_PAGES,
        num_host_pages=num_host_pages,
        max_batch_tokens=100,
        max_batch_sequences=8,
        scheduling=scheduling,
    )
    together = Crowd(rig, KINDS, doom, seed=seed)
    for number in range(num_programs):
        together.launch(number)
    together.finish()
    for pid, said in alone.said.items():
        assert together.said[pid] == said, pid
    stats, claims = rig.core.stats(), rig.core._scheduler.claims
    assert rig.core.check_integrity() == []
    assert rig.core.pool.num_free == NUM_PAGES
    assert stats.num_preemptions > num_programs // 2
    assert stats.batches.num_tokens < most_tokens * alone.rig.core.stats().batches.num_tokens
    assert (stats.num_page_returns > 0) == (num_host_pages > 0)
    assert stats.market.rent > 0
    assert len(claims.ledger) == 1, "the accounts of those that have ended have left"
    assert {"running", "waiting: pages", "waiting: batch", "paused"} <= together.states
    assert {wait.pid for wait in rig.waits} <= {*together.most_pages}
    assert all(0 < wait.num_pages <= NUM_PAGES == wait.num_in_all for wait in rig.waits)
    assert rig.waits, "nobody was told what it waits for"
