"""What the exit codes of `pie` mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pie_engine.errors import PieError

OK = 0
PROGRAM_FAILED = 1
USAGE = 2
DAEMON = 3
NOT_FOUND = 4
INTERRUPTED = 130

MEANINGS = {
    OK: "success",
    PROGRAM_FAILED: "the program failed, a test failed, output cannot be written, or `pie doctor` found a problem",
    USAGE: "wrong usage, wrong input or a program that cannot start",
    DAEMON: "no daemon, or the daemon failed or is in the way",
    NOT_FOUND: "no such file, program, process or model",
    INTERRUPTED: "interrupted with Ctrl-C",
}

DAEMON_CODES = frozenset(
    {"no_daemon", "already_running", "interrupted", "start_failed", "protocol_mismatch", "not_installed"}
)
"""Error codes of the command line itself, and the one of a daemon that speaks another version."""


def exit_code_of(error: PieError) -> int:
    """The exit code for an error that ends a command."""
    from pie_engine import errors

    cause = errors.ErrorInfo(getattr(error, "cause", ""), "").raised()
    if isinstance(cause, errors.InvalidConfig | errors.NotFound):
        # The daemon would have started with another configuration, and with a model that exists.
        return exit_code_of(cause)
    if error.code in DAEMON_CODES or isinstance(error, errors.Lost | errors.ModelError):
        return DAEMON
    if isinstance(error, errors.InvalidInput):
        return USAGE
    return NOT_FOUND if isinstance(error, errors.NotFound) else PROGRAM_FAILED
