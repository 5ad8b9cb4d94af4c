"""The threads that run programs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from pie_engine.model.kernels import codes, step
from pie_engine.model.kernels.program import Program

_PATIENCE = 2000
"""Looks of a thread for the next program before it sleeps: some ten microseconds."""
_NONE = np.zeros(0, np.int64)
_NO_SPANS = np.zeros((0, 4), np.int64)


class Team:
    """A thread for each processor that a model may use; the caller's is one of them."""

    def __init__(self, num_threads: int, kind: str) -> None:
        """`kind` is that of the weights: `bfloat16` or `float32`."""
        self.num_threads = num_threads
        self.kernels = step.step_kernels(kind)
        self.current = np.zeros(1, np.int64)
        self.work: tuple[Any, ...] = ()
        self.is_closed = False
        self._step = 0
        self._words = np.zeros((codes.MAX_OPERATIONS, step.WORDS_PER_OPERATION), np.int64)
        self._helpers = [_Helper(self, number) for number in range(1, num_threads)]

    def run(
        self, steps: Program, spans: np.ndarray = _NO_SPANS, tables: np.ndarray = _NONE, slots: np.ndarray = _NONE
    ) -> None:
        """Run a program to its end. The arrays are what its attention works on: see `attention.attend` and `write`."""
        rows = steps.operations
        if not self._helpers:
            self.kernels.run_alone(rows, steps.factors, spans, tables, slots)
            return
        self._step = self._step % step.MAX_STEP + 1
        self.work = (rows, steps.factors, spans, tables, slots, self._words, len(rows), self._step)
        step.open_step(rows, self._words, self._step)
        self.current[0] = self._step
        for helper in self._helpers:
            helper.wake()
        self.kernels.run_shared(*self.work, 0)

    def close(self) -> None:
        """The other threads end."""
        self.is_closed = True
        self.current[0] = -1
        for helper in self._helpers:
            helper.wake()


class _Helper:
    """One thread more."""

    def __init__(self, team: Team, number: int) -> None:
        self._team, self._number = team, number
        self._is_asleep = False
        self._alarm = threading.Event()
        threading.Thread(target=self._live, name=f"kernels-{number}", daemon=True).start()

    def wake(self) -> None:
        if self._is_asleep:
            self._alarm.set()

    def _live(self) -> None:
        team, last = self._team, 0
        while not team.is_closed:
            number = step.await_step(team.current, last, _PATIENCE)
            if number == last:
                self._sleep(last)
                continue
            last = number
            work = team.work
            if work[-1] == number:
                team.kernels.run_shared(*work, self._number)

    def _sleep(self, last: int) -> None:
        self._alarm.clear()
        self._is_asleep = True
        # It may have come after the last look.
        if self._team.current[0] == last:
            self._alarm.wait()
        self._is_asleep = False
