"""Checks of what crosses to the host: there a wrong type would end the whole program without a word."""

from __future__ import annotations

import inspect
from array import array
from collections.abc import Iterable
from typing import Any

from inferlet.errors import InvalidInput


def token_ids(name: str, value: Iterable[int]) -> list[int]:
    """A list of token ids. Raises `InvalidInput` naming what is none."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidInput(f"{name} has to be a list of token ids; got {value!r}")
    ids = list(value)
    try:
        array("I", ids)
    except (TypeError, OverflowError):
        wrong = next(token for token in ids if not isinstance(token, int) or not 0 <= token < 2**32)
        raise InvalidInput(f"{name} has to be token ids, integers from 0; got {wrong!r}") from None
    return ids


def count(name: str, value: Any) -> Any:
    """An integer of 32 bits from 0, or None."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidInput(f"{name} has to be an integer from 0; got {value!r}")
    if value is not None and value >= 2**32:
        raise InvalidInput(f"{name} can be {2**32 - 1} at most; got {value}")
    return value


def number(name: str, value: Any) -> float:
    """A finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < float("inf"):
        raise InvalidInput(f"{name} has to be a number; got {value!r}")
    return float(value)


def seconds(name: str, value: Any) -> float | None:
    """A time from 0, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= value < float("inf")):
        raise InvalidInput(f"{name} has to be a number of seconds from 0; got {value!r}")
    return None if value is None else float(value)


def texts(name: str, value: Any) -> list[str]:
    """A text, or several."""
    if not isinstance(value, str | Iterable):
        raise InvalidInput(f"{name} has to be a text or a list of texts; got {value!r}")
    return [text(name, each) for each in ([value] if isinstance(value, str) else value)]


def text(name: str, value: Any) -> str:
    """A text that UTF-8 can carry."""
    if not isinstance(value, str):
        hint = "write `await` before the call that makes it" if inspect.isawaitable(value) else ""
        raise InvalidInput(f"{name} has to be a text; got {type(value).__name__}", hint=hint)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name} has half of a character at position {error.start}") from None
    return value


def seed(value: Any) -> int | None:
    """A seed of 64 bits, or None."""
    if value is not None and not isinstance(value, int):
        raise InvalidInput(f"seed has to be an integer; got {value!r}")
    return None if value is None else value % 2**64
