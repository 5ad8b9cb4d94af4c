"""Guests made ahead of need. One that is warm has run a small program of the runtime's own, so that the memory which
every program touches is there already; launching in it takes a quarter of the time."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

from pie_engine.errors import Internal
from pie_engine.host.programs import Program
from pie_engine.host.runner import Guest, Nobody, Runner, Status

MAX_WARM_UP_TURNS = 100


class WarmGuests:
    """Up to `target` guests of the shared runtime. They see an empty folder."""

    def __init__(self, runner: Runner | None, data: Path, target: int) -> None:
        """`data`: where the data files of programs are kept. `runner` None: there are standalone components only."""
        self._runner = runner
        self._data = data
        self._target = target
        self._cold: deque[Guest] = deque()
        self._warm: deque[Guest] = deque()
        self._empty = tempfile.TemporaryDirectory(prefix="pie-empty-")

    def __len__(self) -> int:
        return len(self._warm)

    @property
    def is_full(self) -> bool:
        return len(self._warm) >= self._target

    def work(self) -> None:
        """One step towards a full house: an instance, or its warm-up. Each takes milliseconds."""
        if self._cold:
            self._warm_up(self._cold.popleft())
        else:
            self._cold.append(self._prepare())

    def take(self, program: Program) -> Guest:
        """A guest for `program`. One with data files gets a new guest, since its folder has to be there from birth."""
        if program.has_data:
            return self.of(self._shared, program)
        for guests in (self._warm, self._cold):
            if guests:
                return guests.popleft()
        return self._prepare()

    def close(self) -> None:
        for guests in (self._warm, self._cold):
            while guests:
                guests.popleft().close()
        self._empty.cleanup()

    def of(self, runner: Runner, program: Program) -> Guest:
        """A new guest of any runner, with the program's data files in its folder."""
        return runner.prepare(program.data_folder(self._data) if program.has_data else Path(self._empty.name))

    @property
    def _shared(self) -> Runner:
        assert self._runner is not None, "this host has no Python runtime"
        return self._runner

    def _prepare(self) -> Guest:
        return self._shared.prepare(Path(self._empty.name))

    def _warm_up(self, guest: Guest) -> None:
        guest.begin(Nobody(), "describe", ("",))
        for _ in range(MAX_WARM_UP_TURNS):
            if guest.resume() is not Status.PREEMPTED:
                break
        outcome = guest.take_outcome()
        if not outcome.is_ok:
            raise Internal(
                f"the Python runtime cannot warm up: {outcome.text}",
                hint="`pie doctor --fix` removes what may be damaged in the cache, and it is built again",
            )
        self._warm.append(guest)
