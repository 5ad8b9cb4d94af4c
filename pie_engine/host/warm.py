"""Guests made ahead of need: launching one then costs no instantiation."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

from pie_engine.host.programs import Program
from pie_engine.host.runner import Guest, Runner


class WarmGuests:
    """Up to `target` guests of the shared runtime that have not run anything. They see an empty folder."""

    def __init__(self, runner: Runner, data: Path, target: int) -> None:
        """`data`: where the data files of programs are kept."""
        self._runner = runner
        self._data = data
        self._target = target
        self._guests: deque[Guest] = deque()
        self._empty = tempfile.TemporaryDirectory(prefix="pie-empty-")

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def is_full(self) -> bool:
        return len(self._guests) >= self._target

    def add(self) -> None:
        self._guests.append(self._runner.prepare(Path(self._empty.name)))

    def take(self, program: Program) -> Guest:
        """A guest for `program`. One with data files gets a new guest, since its folder has to be there from birth."""
        if program.has_data:
            return self._runner.prepare(program.data_folder(self._data))
        if not self._guests:
            self.add()
        return self._guests.popleft()

    def close(self) -> None:
        while self._guests:
            self._guests.popleft().close()
        self._empty.cleanup()
