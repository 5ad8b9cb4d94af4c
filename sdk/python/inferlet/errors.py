"""The errors that an inferlet can meet. Each has a stable `code`, a `message` and a `hint` that says the way out.

PieError
├── InvalidInput        a value from outside is wrong; the message names it
│   └── InvalidProgram  the program itself cannot start
├── NotFound            no such model, or an object that is gone
├── Unsupported         asked for what this sandbox, model or build does not have
│   └── NotInSandbox    network, processes, files to write: also an `OSError`, as elsewhere in Python
├── ContextTooLong      more tokens than the model's context
├── OutOfPages          can never fit in the page pool
├── LimitExceeded       a limit of this process was hit
├── Busy                the object is in use; a retry can help
├── Cancelled           called off by its owner
├── CoreLost            the process that held the model died; it is being restarted
├── ChildFailed         a child has ended with an error, which is its `failure`
└── Internal            a bug of the engine
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class PieError(Exception):
    """Base of all errors of the engine and of this package."""

    code: str = "error"
    retry: bool = False
    """Whether the same call can succeed later."""

    def __init__(self, message: str, *, hint: str = "", retry: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if retry is not None:
            self.retry = retry


class InvalidInput(PieError):
    """A value from outside is wrong; the message names it."""

    code = "invalid_input"


class InvalidProgram(InvalidInput):
    """The program cannot start: no `main`, a syntax error, an import that a sandbox cannot load."""

    code = "invalid_program"


class NotFound(PieError):
    """No such model, or an object that is gone."""

    code = "not_found"


class Unsupported(PieError):
    """Asked for what this sandbox, model or build does not have."""

    code = "unsupported"


class NotInSandbox(Unsupported, OSError):
    """Asked for what an operating system has and a sandbox does not; `except OSError` catches it, too."""


class ReadOnly(NotInSandbox, PermissionError):
    """Files cannot be written in a sandbox."""


class ContextTooLong(PieError):
    """More tokens than the model's context."""

    code = "context_too_long"


class OutOfPages(PieError):
    """Can never fit in the page pool."""

    code = "out_of_pages"


class LimitExceeded(PieError):
    """A limit of this process was hit; the process ends."""

    code = "limit_exceeded"


class Busy(PieError):
    """The object is in use; a retry can help."""

    code = "busy"
    retry = True


class Cancelled(PieError):
    """Called off by its owner."""

    code = "cancelled"


class CoreLost(PieError):
    """The process that held the model died; it is being restarted."""

    code = "core_lost"
    retry = True


@dataclass(frozen=True, slots=True)
class Failure:
    """The error with which another program has ended, as `pie logs` shows it."""

    code: str
    """Such as `exception`, `cancelled`, `wall_limit`."""
    message: str
    hint: str = ""
    traceback: str = ""
    """Of the program's own code; empty where it was ended from outside."""
    retry: bool = False
    """Whether the same launch can succeed later."""


class ChildFailed(PieError):
    """A child has ended with an error: `failure` has its code, message, hint and traceback."""

    code = "child_failed"

    def __init__(self, program: str, pid: str, failure: Failure) -> None:
        super().__init__(f"child `{program}` ({pid}) failed: {failure.message}", hint=failure.hint, retry=failure.retry)
        self.program = program
        self.pid = pid
        self.failure = failure
        if failure.traceback:
            self.add_note(f"in the child:\n{failure.traceback.rstrip()}")


class Internal(PieError):
    """A bug of the engine."""

    code = "internal"


_BY_CODE: dict[str, type[PieError]] = {
    cls.code: cls
    for cls in (
        InvalidInput,
        InvalidProgram,
        NotFound,
        Unsupported,
        ContextTooLong,
        OutOfPages,
        LimitExceeded,
        Busy,
        Cancelled,
        CoreLost,
        Internal,
    )
}


def error_of(code: str, message: str, retry: bool = False) -> PieError:
    """The exception of the class that `code` names; an unknown code keeps its name in a plain `PieError`."""
    error = _BY_CODE.get(code, PieError)(message, retry=retry)
    error.code = code
    return error


def from_wire(record: Any) -> PieError:
    """The exception for a `pie:core/types.error` record."""
    return error_of(record.code.name.lower(), record.message, record.retry)
