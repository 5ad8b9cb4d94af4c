"""What can go wrong on this side of the socket."""

from __future__ import annotations

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
