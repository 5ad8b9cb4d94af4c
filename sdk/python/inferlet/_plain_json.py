"""Values as JSON."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import pathlib
from typing import Any


def dump_json(value: Any) -> str:
    """A value as JSON; dataclasses, enums, sets and paths become what JSON has.

    Raises `TypeError` or `ValueError` (NaN, infinity, cycles) for what it does not have.
    """
    return json.dumps(value, default=_plain, allow_nan=False)


def readable_json(value: Any) -> str:
    """`dump_json` for a model to read: every character as itself."""
    return json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """What `json.dumps` asks for values it does not know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, pathlib.PurePath):
        return str(value)
    kind = type(value).__name__
    if inspect.isawaitable(value):
        raise TypeError(f"a value of type {kind} is not JSON; write `await` before the call that makes it")
    raise TypeError(f"a value of type {kind} is not JSON; use str, numbers, lists, dicts or dataclasses")
