"""More context than pages on a real model, under the market: every program says, bit for bit, what it says alone.

Bids change all the time, programs are paused, away and killed meanwhile, and host memory holds a part of what moves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator

import pytest

from pie_engine.config import SchedulingSection
from pie_engine.driver.cpu import CpuDriver
from pie_engine.hub.places import resolve
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.plan import BeamPlan, Speculation
from pie_engine.protocol.sampling import GREEDY, Probes, Sampler
from pie_engine.protocol.to_core import (
    Append,
    CloseProcess,
    CreateContext,
    Endow,
    Forward,
    OpenProcess,
    PauseProcess,
    ResumeProcess,
    Search,
    SetAway,
    SetBid,
    SetProcessBid,
    Truncate,
)
from tests.unit.core_rig import HOST, Heard, Rig

Program = Generator[list[int], None, None]
"""Says which operations it waits for; goes on when they are over."""
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


KINDS: list[Callable[[Rig, str, int], Program]] = [forks, passes, talks, windows, searches, large]


class Run:
    """Programs on a core, each a process."""

    def __init__(self, rig: Rig, seed: int | None = None) -> None:
        """`seed`: of what happens to them; None: nothing."""
        self.rig = rig
        self._chance = None if seed is None else random.Random(seed)
        self.said: dict[str, list[object]] = {}
        self.most_pages: dict[str, int] = {}
        """That each process has held at once."""
        self.states: set[str] = set()
        self._programs: dict[str, tuple[Program, list[int]]] = {}
        self._paused: list[str] = []
        self._doomed: list[str] = []
        """Programs that are killed some time."""

    def launch(self, number: int) -> None:
        pid, kind = f"q{number}", KINDS[number % len(KINDS)]
        credits = 1000 if self._chance is None else self._chance.choice([0, 5, 1000, 100_000])
        self.rig.send(OpenProcess(pid, kind.__name__, f"user {number % 2}", endowment=credits * CREDIT))
        program = kind(self.rig, pid, number)
        self._programs[pid] = (program, next(program))
        self.said[pid] = []

    def finish(self, max_steps: int = 50_000) -> None:
        for number in range(max_steps):
            if not self._programs:
                self.rig.send(*map(CloseProcess, self._doomed))
                return
            self.rig.step(after_s=0.1)
            self.rig.take_all()
            self.rig.core.tell_waiting()
            if number % 8 == 0:
                self.rig.check()
                self._look()
                if self._chance is not None:
                    self._stir(self._chance)
            for pid, (program, awaited) in list(self._programs.items()):
                if all(self._is_over(op) for op in awaited):
                    self.said[pid] += [self._outcome(op) for op in awaited]
                    self._go_on(pid, program)
        raise AssertionError(f"still there: {self.states}")

    def _stir(self, chance: random.Random) -> None:
        """Somebody bids something else, is away or back, pauses or goes on, gets credits, comes or is killed."""
        send, contexts = self.rig.send, [*self.rig.core._hosts[HOST].contexts]
        for ctx in chance.sample(contexts, min(4, len(contexts))):
            send(SetBid(ctx, chance.choice([None, 0, chance.randrange(CREDIT)])))
            send(SetAway(ctx, chance.random() < 0.3))
        send(*map(ResumeProcess, self._paused))
        pid = chance.choice([*self._programs])
        self._paused = [pid] if chance.random() < 0.3 else []
        send(*map(PauseProcess, self._paused))
        send(SetProcessBid(pid, chance.choice([None, None, chance.randrange(CREDIT)])))
        if chance.random() < 0.2:
            send(Endow(pid, chance.randrange(1000 * CREDIT)))
        if len(self._doomed) < 2:
            self._doomed.append(doomed := f"doomed {self.rig.new_id()}")
            send(OpenProcess(doomed, "test", endowment=chance.choice([0, 1000 * CREDIT])))
            ctx = opened(self.rig, doomed, 1, MANUAL + tokens_of(self.rig.new_id(), 20))
            for _ in range(2):
                reply(self.rig, self.rig.fork(ctx, 90), 1, 200)
        elif chance.random() < 0.3:
            send(CloseProcess(self._doomed.pop(0)))

    def _look(self) -> None:
        for usage in self.rig.core.stats().processes or []:
            self.most_pages[usage.pid] = max(usage.num_pages, self.most_pages.get(usage.pid, 0))
            self.states.add(usage.state.split(" (")[0])

    def _go_on(self, pid: str, program: Program) -> None:
        try:
            self._programs[pid] = (program, next(program))
        except StopIteration:
            del self._programs[pid]
            self.rig.send(CloseProcess(pid))

    def _is_over(self, op: int) -> bool:
        heard = self.rig.heard.get(op, Heard())
        assert heard.error is None, heard.error
        return bool(heard.finish or heard.is_flushed or heard.forwarded or heard.searched)

    def _outcome(self, op: int) -> object:
        heard = self.rig.heard[op]
        logprobs = [each for chunk in heard.chunks for each in chunk.logprobs]
        top = [each for chunk in heard.chunks for each in chunk.top]
        passed = heard.forwarded and (heard.forwarded.token, heard.forwarded.logprob, heard.forwarded.probed)
        found = heard.searched and [(each.ids, each.score) for each in heard.searched]
        return heard.ids, logprobs, top, heard.finish, passed, found


def rig_of(num_pages: int, **settings: object) -> Rig:
    folder = resolve("pie-tiny")
    driver = CpuDriver.load(folder, num_threads=1, dtype="float32", deterministic=True, num_pages=num_pages)
    return Rig(driver=driver, tokenizer=Tokenizer.load(folder), num_pages=num_pages, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("num_programs", "seed", "num_host_pages"),
    [
        (8, 1, 26),
        *(pytest.param(48, seed, size, marks=pytest.mark.slow) for seed, size in ((2, 26), (3, 400), (4, 0))),
    ],
)
@pytest.mark.timeout(600)
def test_everything_at_once_on_a_real_model_ends_bit_for_bit_as_alone(
    num_programs: int, seed: int, num_host_pages: int
) -> None:
    alone = Run(rig_of(200, prefix_cache="off"))
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
    together = Run(rig, seed)
    for number in range(num_programs):
        together.launch(number)
    together.finish()
    for pid, said in alone.said.items():
        assert together.said[pid] == said, pid
    stats, claims = rig.core.stats(), rig.core._scheduler.claims
    assert rig.core.check_integrity() == []
    assert rig.core.pool.num_free == NUM_PAGES
    assert stats.num_preemptions > num_programs // 2
    assert (stats.num_page_returns > 0) == (num_host_pages > 0)
    assert stats.market.rent > 0
    assert len(claims.ledger) == 1, "the accounts of those that have ended have left"
    assert {"running", "waiting: pages", "waiting: batch", "paused"} <= together.states
    assert {wait.pid for wait in rig.waits} <= {*together.most_pages}
    assert all(0 < wait.num_pages <= NUM_PAGES == wait.num_in_all for wait in rig.waits)
    assert rig.waits, "nobody was told what it waits for"
