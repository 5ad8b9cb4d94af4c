"""Errors as HTTP answers: the one place that knows which status an error has."""

from __future__ import annotations

import logging
import sqlite3

from pie_engine.errors import (
    Busy,
    ErrorInfo,
    Internal,
    InvalidInput,
    InvalidProgram,
    LimitExceeded,
    Lost,
    ModelError,
    NotFound,
    PieError,
    ProtocolMismatch,
    Unsupported,
)
from pie_engine.store.contexts import AlreadyThere

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1


class Conflict(InvalidInput):
    """The request contradicts what is already there."""


class TooLarge(InvalidInput):
    """The body is over its limit."""


# The first class that fits, so the special ones come first.
_STATUS: tuple[tuple[type[PieError], int], ...] = (
    (Conflict, 409),
    (AlreadyThere, 409),
    (TooLarge, 413),
    (InvalidProgram, 422),
    (Unsupported, 422),
    (ModelError, 422),
    (InvalidInput, 400),
    (NotFound, 404),
    (LimitExceeded, 429),
    (ProtocolMismatch, 426),
    (Busy, 503),
    (Lost, 503),
)


def status_of(error: PieError) -> int:
    return next((status for cls, status in _STATUS if isinstance(error, cls)), 500)


def translated(error: Exception) -> PieError:
    """What a client is told. A foreign exception is our bug: logged here, once, with its traceback."""
    if isinstance(error, PieError):
        return error
    if isinstance(error, sqlite3.Error):
        return store_failure(error)
    log.error("request failed", exc_info=error)
    return Internal(f"{type(error).__name__}: {error}")


def store_failure(error: sqlite3.Error) -> PieError:
    log.error("the database refused: %s", error)
    return Busy(f"the gateway cannot write to its database: {error}", hint="`pie doctor` shows the free space")


def retry_after(info: ErrorInfo, status: int) -> int | None:
    """Seconds for the `Retry-After` header."""
    return RETRY_AFTER_S if status in (429, 503) or info.retry else None
