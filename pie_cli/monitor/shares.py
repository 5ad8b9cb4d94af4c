"""Which part of a core's batches each program took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pie_cli.monitor.series import Marks


@dataclass(frozen=True, slots=True)
class Look:
    """What a core knew at one moment."""

    num_tokens: int
    """That it had run."""
    of_programs: Mapping[str, int] = field(default_factory=dict)
    """Of these, by pid."""

    def since(self, before: Look, pid: str) -> float | None:
        """The part of a program of what ran between two looks; None: nothing ran.

        Who was not there at one of them, or has begun anew, had run nothing then.
        """
        num_run = self.num_tokens - before.num_tokens
        own, old = self.of_programs.get(pid, 0), before.of_programs.get(pid, 0)
        return (own - old if own >= old else own) / num_run if num_run > 0 else None


class Shares:
    """All of them are over the same span, between two looks at all programs at once, so that they add up to no more
    than the whole."""

    def __init__(self, at: float, fast_s: float, slow_s: float, look: Look) -> None:
        self._at, self._now = at, look
        self._fast, self._slow = Marks(at, look, fast_s), Marks(at, look, slow_s)

    def apply(self, at: float, look: Look, num_run: int) -> None:
        """`num_run`: tokens by now. It is the old look if more have run than it knows, and no more than before."""
        if look.num_tokens == self._now.num_tokens < num_run:
            return
        # Only now, so that the shares of the look before were against what was before it.
        self._fast.move(self._at, self._now)
        self._slow.move(self._at, self._now)
        self._at, self._now = at, look

    def of(self, pid: str) -> float | None:
        """Over the last one to two fast periods."""
        return self._now.since(self._fast.value, pid)

    def slow_of(self, pid: str) -> float:
        """Over the last one to two slow periods; 0 where nothing ran."""
        return self._now.since(self._slow.value, pid) or 0.0
