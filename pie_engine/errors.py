"""The error tree: every failure a user can meet has a code, a message and a hint.

    PieError
    ├── InvalidInput            a value from outside is wrong; names it
    │   ├── InvalidConfig       a configuration file or environment variable
    │   └── InvalidProgram      an inferlet that cannot start (manifest, syntax, no `main`, native import)
    ├── NotFound                a program, process, model or context that does not exist
    ├── Unsupported             asked for what this driver, model or build does not have
    ├── ModelError              a checkpoint that cannot be loaded
    ├── PullFailed              a model that cannot be fetched: access, connection, checksum or disk
    ├── LimitExceeded           a limit of the process was hit; `limit` names it
    ├── ContextTooLong          more tokens than the model's context
    ├── OutOfPages              can never fit in the page pool
    ├── Busy                    the object is in use or a queue is full; a retry can help
    ├── Cancelled               terminated by its owner
    ├── ProtocolMismatch        client and daemon are of versions that do not understand each other
    ├── Lost                    a process that the program depended on died
    └── Internal                our own bug

An error crosses a process boundary as `ErrorInfo` and is raised again as the same class.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The wire form of an error."""

    code: str
    message: str
    hint: str = ""
    retry: bool = False
    """Whether the same request can succeed later."""
    traceback: str = ""
    """The user's own traceback, when a program raised."""

    def raised(self) -> PieError:
        """The exception of the class that `code` names."""
        cls = _BY_CODE.get(self.code, PieError)
        error = cls(self.message, hint=self.hint)
        error.code, error.retry, error.traceback = self.code, self.retry, self.traceback
        return error


class PieError(Exception):
    """Base of all errors that a user can meet. `code` is stable, `message` names the thing, `hint` the way out."""

    code: str = "error"
    retry: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.traceback = ""

    @property
    def info(self) -> ErrorInfo:
        return ErrorInfo(self.code, self.message, self.hint, self.retry, self.traceback)


class InvalidInput(PieError):
    code = "invalid_input"


class InvalidConfig(InvalidInput):
    code = "invalid_config"


class InvalidProgram(InvalidInput):
    code = "invalid_program"


class NotFound(PieError):
    code = "not_found"


class Unsupported(PieError):
    code = "unsupported"


class ModelError(PieError):
    code = "model_error"


class PullFailed(PieError):
    code = "pull_failed"
    retry = True


class LimitExceeded(PieError):
    """`code` is the limit's own name: `memory_limit`, `cpu_limit`, `output_limit`, `wall_limit`."""

    code = "limit_exceeded"
    LIMITS: ClassVar = (
        *("memory_limit", "cpu_limit", "output_limit", "wall_limit"),
        *("child_limit", "queue_limit", "disk_limit"),
    )

    @classmethod
    def of(cls, limit: str, message: str, *, hint: str = "") -> LimitExceeded:
        assert limit in cls.LIMITS, limit
        error = cls(message, hint=hint)
        error.code = limit
        return error


class ContextTooLong(PieError):
    code = "context_too_long"


class OutOfPages(PieError):
    code = "out_of_pages"


class Busy(PieError):
    code = "busy"
    retry = True


class Cancelled(PieError):
    code = "cancelled"


class ProtocolMismatch(PieError):
    code = "protocol_mismatch"


class Lost(PieError):
    """`code` says which: `core_lost`, `host_lost`, `lost` (the whole daemon), `daemon_stopped` (somebody wanted it)."""

    code = "lost"
    retry = True
    CODES: ClassVar = ("lost", "core_lost", "host_lost", "host_recycled", "daemon_stopped")

    @classmethod
    def of(cls, code: str, message: str, *, hint: str = "") -> Lost:
        assert code in cls.CODES, code
        error = cls(message, hint=hint)
        error.code = code
        return error


class ChildFailed(PieError):
    """A program ended with the error of one that it had launched."""

    code = "child_failed"


class Internal(PieError):
    code = "internal"


def _classes(root: type[PieError]) -> list[type[PieError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _classes(child))]


_BY_CODE: dict[str, type[PieError]] = {
    **{cls.code: cls for cls in _classes(PieError)},
    **dict.fromkeys(LimitExceeded.LIMITS, LimitExceeded),
    **dict.fromkeys(Lost.CODES, Lost),
}


def info_of(error: BaseException) -> ErrorInfo:
    """Any exception as it crosses a boundary; a foreign one is our bug and keeps its class name."""
    if isinstance(error, PieError):
        return error.info
    return Internal(f"{type(error).__name__}: {error}").info
