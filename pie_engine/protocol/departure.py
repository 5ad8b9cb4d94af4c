"""Where a program that runs against a recording does not do what the recorded one did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pie_engine.protocol.recording import Call, Fail

Made = tuple[str, list[Any]]
"""A call: its function and arguments."""


@dataclass(frozen=True, slots=True)
class Departure:
    """One difference."""

    kind: Literal["call", "output", "ending"]
    number: int
    """Of the call in the recording, from 1; one more than it has: after the last one."""
    place: str
    """Where the program is, as `main.py:12 in main`; empty where that is not known."""
    made: Made | None
    """What the program called; None: nothing, it ended or went on to something else."""
    recorded: Call | Fail | None
    """What the recording has there; None: nothing, it ends."""
    text: str = ""
    """Of an ending: how."""
