"""The seam between the host's loop and how guests run: one at a time, each until it waits, ends or has had its slice.

`fibres.FibreRunner` is what hosts use; `threads.ThreadRunner` gives each guest a thread instead. The same suite passes
against both.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pie_engine.errors import PieError
from pie_engine.host.surroundings import StillSurroundings
from pie_engine.host.tap import Places, Tap

PROGRAM = "pie:core/program@0.1.0"
"""The interface that every inferlet exports, with `describe` and `run`."""


class Status(enum.Enum):
    """Why a guest has stopped running."""

    WAITING = "in wait-any; `answer` it before it is resumed"
    PREEMPTED = "its slice is over"
    AWAY = "it runs elsewhere, and has said all it has to say for now"
    ENDED = "its outcome is there"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call into a guest gave: `text` is the result, the guest's own error, or what the trap says."""

    is_ok: bool
    text: str
    is_trap: bool = False
    is_out_of_memory: bool = False
    """Whether the trap is known to come from that."""
    traceback: str = ""
    """Of a trap: the functions that the program was in, where they have names."""


class GuestOver(BaseException):
    """Raised by an import: the guest is to stop here, as in a trap with this text."""


class Owner(Protocol):
    """On whose behalf a guest runs; passed to every import as its first argument."""

    num_calls: int
    """Calls that the guest has made to the host."""
    tap: Tap | None
    places: Places
    """Who is told of them."""

    def begin_wait(self, timeout_us: int | None) -> list[int] | None:
        """`futures.wait-any`: what is ready, or None to suspend the guest. Raises `PieError`."""


class Nobody:
    """The owner of a guest that has no program yet. Whatever it reads of time and chance is the same every time."""

    tap: Tap | None = None

    def __init__(self) -> None:
        self.num_calls = 0
        self.places = Places()
        self.surroundings = StillSurroundings()

    def begin_wait(self, timeout_us: int | None) -> list[int]:
        return []


class Guest(Protocol):
    """One instance of a component. Calls into it come one after another; after a trap there is none."""

    used_cpu_ns: int
    """CPU time of the last `resume`."""

    def limit_memory(self, num_bytes: int) -> None:
        """From now on; only before `begin`."""

    def begin(self, owner: Owner, function: str, arguments: Sequence[str]) -> None:
        """Set a call up: a function of `PROGRAM` that takes strings. The first `resume` enters it."""

    def answer(self, ready: list[int] | PieError) -> None:
        """What `wait-any` returns when a waiting guest is resumed."""

    def resume(self) -> Status: ...

    def take_outcome(self) -> Outcome:
        """After `ENDED`; the call is over."""

    def close(self) -> None:
        """Free everything, whatever the guest is doing; not from within one of its calls."""


class Runner(Protocol):
    """Makes guests."""

    def prepare(self, folder: Path) -> Guest:
        """A new instance that sees `folder` as its root, read-only; it has not run anything yet."""
