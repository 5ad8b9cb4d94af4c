"""What can go wrong on this side of the socket, and how any error looks in a traceback."""

from __future__ import annotations

from typing import TypeVar

from pie_engine.errors import PieError


class NoDaemon(PieError):
    """Nobody answers at the daemon's address."""

    code = "no_daemon"
    retry = True


class Interrupted(PieError):
    """The connection broke in the middle; what was asked may or may not have happened."""

    code = "interrupted"
    retry = True


class EndOfEvents(StopAsyncIteration):
    """`recv` after the last event of a process."""


Some = TypeVar("Some", bound=PieError)


def explained(error: Some) -> Some:
    """The error with its hint and the program's own traceback as notes: what nobody catches says all it knows."""
    if error.traceback:
        error.add_note(f"in the program:\n{error.traceback.rstrip()}")
    if error.hint:
        error.add_note(f"hint: {error.hint}")
    return error
