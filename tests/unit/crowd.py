"""Programs on a core, all at once, and what may happen to them meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence

from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.to_core import (
    CloseProcess,
    Endow,
    OpenProcess,
    PauseProcess,
    ResumeProcess,
    SetAway,
    SetBid,
    SetProcessBid,
)
from tests.unit.core_rig import HOST, Heard, Rig

Program = Generator[list[int], None, None]
"""Says which operations it waits for; goes on when they are over."""
Kind = Callable[[Rig, str, int], Program]
"""A program on a core, by the id of its process and its number."""


class Crowd:
    """Programs on a core, each a process."""

    def __init__(
        self, rig: Rig, kinds: Sequence[Kind], doom: Callable[[Rig, str], None], *, seed: int | None = None
    ) -> None:
        """`doom`: gives a process that will be killed some time something to do. `seed`: of what happens to them all;
        None: nothing."""
        self.rig = rig
        self._kinds = kinds
        self._doom = doom
        self._chance = None if seed is None else random.Random(seed)
        self.said: dict[str, list[object]] = {}
        self.most_pages: dict[str, int] = {}
        """That each process has held at once."""
        self.states: set[str] = set()
        self._programs: dict[str, tuple[Program, list[int]]] = {}
        self._paused: list[str] = []
        self._doomed: list[str] = []
        """Processes that are killed some time."""

    def launch(self, number: int) -> None:
        pid, kind = f"q{number}", self._kinds[number % len(self._kinds)]
        credits = 1000 if self._chance is None else self._chance.choice([0, 5, 1000, 100_000])
        self.rig.send(OpenProcess(pid, kind.__name__, f"user {number % 2}", endowment=credits * CREDIT))
        program = kind(self.rig, pid, number)
        self._programs[pid] = (program, next(program))
        self.said[pid] = []

    def finish(self, max_steps: int = 50_000) -> None:
        """Step until every program has ended; who is doomed is killed then."""
        for number in range(max_steps):
            if not self._programs:
                self.rig.send(*map(CloseProcess, self._doomed))
                self._doomed.clear()
                return
            self._step()
            if number % 8 == 0:
                self.rig.check()
                self._look()
                if self._chance is not None:
                    self._stir(self._chance)
            self._go_on()
        waiting = {usage.pid: usage.state for usage in self.rig.core.stats().processes}
        raise AssertionError(f"still there: {waiting}")

    def _step(self) -> None:
        self.rig.step(after_s=0.1)
        self.rig.take_all()
        self.rig.core.tell_waiting()
        if self.rig.core.has_disk_work:
            time.sleep(0.0005)  # a disk takes its time, however many steps are made meanwhile

    def _look(self) -> None:
        for usage in self.rig.core.stats().processes:
            self.most_pages[usage.pid] = max(usage.num_pages, self.most_pages.get(usage.pid, 0))
            self.states.add(usage.state.split(" (")[0])

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
            self._doom(self.rig, doomed)
        elif chance.random() < 0.3:
            send(CloseProcess(self._doomed.pop(0)))

    def _go_on(self) -> None:
        """Every program that has what it waited for."""
        for pid, (program, awaited) in list(self._programs.items()):
            if not all(self._is_over(op) for op in awaited):
                continue
            self.said[pid] += [self._outcome(op) for op in awaited]
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
