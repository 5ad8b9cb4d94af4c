"""When the generations of a process began and ended, for traces; only gathered where somebody collects those."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from pie_engine.protocol.plan import Usage
from pie_engine.protocol.to_gateway import Generation, Generations

MAX_GATHERED = 1000
"""Of one process; of what comes later only the number is kept."""


class OpenGeneration:
    """One, from its plan to its last chunk."""

    def __init__(self, model: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.seen = Generation(model, clock())

    def first_token(self) -> None:
        """There is one; the first time counts."""
        if self.seen.first_token is None:
            self.seen = msgspec.structs.replace(self.seen, first_token=self._clock())

    def end(self, finish: str, usage: Usage) -> None:
        """`finish`: its reason, or `error`."""
        self.seen = msgspec.structs.replace(self.seen, ended=self._clock(), finish=finish, usage=usage)


class GenerationLog:
    """Those of one process."""

    def __init__(self, pid: str, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since the epoch."""
        self._pid, self._clock = pid, clock
        self._gathered: list[OpenGeneration] = []
        self._num_left_out = 0

    def begin(self, model: str) -> OpenGeneration:
        generation = OpenGeneration(model, self._clock)
        if len(self._gathered) < MAX_GATHERED:
            self._gathered.append(generation)
        else:
            self._num_left_out += 1
        return generation

    def told(self) -> Generations:
        """At the end of the process."""
        return Generations(self._pid, [each.seen for each in self._gathered], self._num_left_out)
