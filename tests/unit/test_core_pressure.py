"""More context than pages: programs of every kind, all at once, end as each of them does alone, and none fails.

Whatever they bid, and whoever goes meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from pie_engine.config import SchedulingSection
from pie_engine.protocol.credits import PolicyName
from pie_engine.protocol.plan import BeamPlan, Speculation
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import (
    Append,
    CloseProcess,
    CreateContext,
    Endow,
    OpenProcess,
    PauseProcess,
    Release,
    Restore,
    ResumeProcess,
    Save,
    Search,
    SetAway,
    SetBid,
    SetProcessBid,
    Truncate,
)
from pie_engine.store.contexts import SavedContexts
from tests.unit.core_rig import HOST, PAGE_SIZE, RANDOM, Heard, Rig

Program = Generator[list[int], None, None]
"""Says which operations it waits for; goes on when they are over."""
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


KINDS: list[Callable[[Rig, str, int], Program]] = [replies, passes, saves, searches, large]


class Run:
    """Programs on a core, each a process."""

    def __init__(self, rig: Rig, *, is_restless: bool = False) -> None:
        """`is_restless`: what programs bid changes all the time, and programs come that are killed."""
        self.rig = rig
        self._chance = random.Random(5)
        self._is_restless = is_restless
        self.killed: list[str] = []
        """Programs that are not meant to end by themselves, as far as they are there."""
        self.said: dict[str, list[object]] = {}
        self._programs: dict[str, tuple[Program, list[int]]] = {}
        self.most_pages: dict[str, int] = {}
        """That each process has held at once."""

    def launch(self, number: int) -> None:
        pid, kind = f"q{number}", KINDS[number % len(KINDS)]
        self.rig.send(OpenProcess(pid, kind.__name__, f"user {number % 2}"))
        program = kind(self.rig, pid, number)
        self._programs[pid] = (program, next(program))
        self.said[pid] = []

    def finish(self, max_steps: int = 20_000) -> None:
        for _ in range(max_steps):
            if not self._programs:
                return
            self.rig.step(after_s=0.1)
            self.rig.take_all()
            if self.rig.core.has_disk_work:
                time.sleep(0.0005)  # a disk takes its time, however many steps are made meanwhile
            if self.rig.core.num_steps % 8 == 0:
                self.rig.check()
                self._look()
                if self._is_restless:
                    self._stir()
            for pid, (program, awaited) in list(self._programs.items()):
                if all(self._is_over(op) for op in awaited):
                    self.said[pid] += [self._outcome(op) for op in awaited]
                    self._go_on(pid, program)
        waiting = {usage.pid: usage.state for usage in self.rig.core.stats().processes}
        raise AssertionError(f"still waiting: {waiting}")

    def _stir(self) -> None:
        """Somebody bids something else, is away or back, pauses, comes or is killed."""
        chance, send = self._chance, self.rig.send
        for context in chance.sample(
            contexts := [*self.rig.core._hosts[HOST].contexts.values()], min(4, len(contexts))
        ):
            send(SetBid(context.ctx, chance.choice([None, 0, chance.randrange(10**6)])))
            send(SetAway(context.ctx, chance.random() < 0.3))
        pid = chance.choice([*self._programs])
        send(SetProcessBid(pid, chance.choice([None, None, chance.randrange(10**6)])))
        send(PauseProcess(pid))
        send(ResumeProcess(pid))
        if chance.random() < 0.3:
            send(Endow(pid, chance.randrange(10**9)))
        if len(self.killed) < 3:
            self.killed.append(pid := f"killed {self.rig.new_id()}")
            send(OpenProcess(pid, "test", endowment=chance.choice([0, 10**9])))
            ctx = self.rig.context(text_of(self.rig.new_id(), 40), pid=pid)
            for _ in range(3):
                self.rig.generate(self.rig.fork(ctx, 40), sampler=RANDOM)
        elif chance.random() < 0.5:
            send(CloseProcess(self.killed.pop(0)))

    def _look(self) -> None:
        for usage in self.rig.core.stats().processes:
            self.most_pages[usage.pid] = max(usage.num_pages, self.most_pages.get(usage.pid, 0))

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
        found = heard.searched and [(each.ids, each.score) for each in heard.searched]
        return heard.ids, heard.finish, heard.forwarded and heard.forwarded.token, found


def run(rig: Rig, num_programs: int, *, at_once: bool, is_restless: bool = False) -> Run:
    programs = Run(rig, is_restless=is_restless)
    for number in range(num_programs):
        programs.launch(number)
        if not at_once:
            programs.finish()
    programs.finish()
    rig.send(*map(CloseProcess, programs.killed))
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
    assert run(rig, num_programs, at_once=True, is_restless=True).said == alone.said
    stats = rig.core.stats()
    assert stats.num_preemptions > num_programs // 2
    assert (stats.num_page_returns > 0) == (num_host_pages > 0)
