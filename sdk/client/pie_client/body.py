"""Values as the JSON of a request; what JSON does not have is named by where it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import msgspec

from pie_client.errors import explained
from pie_engine.errors import InvalidInput

MAX_DEPTH = 100


def json_of(what: str, value: object) -> bytes:
    """Raises `InvalidInput` that names the part of `what` which cannot be sent, and its type."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        path, part, why = _culprit(value, "", error)
        place = f"`{path}` of {what}" if path else what
        refused = InvalidInput(
            f"{place} cannot be sent: {why or f'JSON has no `{type(part).__name__}`'}",
            hint="use str, int, float, bool, None, lists, dicts and dataclasses of these",
        )
    raise explained(refused)


def _culprit(value: object, path: str, error: Exception, depth: int = 0) -> tuple[str, object, str]:
    """Where the innermost part of `value` is that cannot be encoded, that part, and why if it is not its type."""
    if depth == MAX_DEPTH:
        return path, value, "it contains itself, or too many levels"
    for step, part in _parts(value):
        try:
            msgspec.json.encode(part)
        except (TypeError, ValueError, OverflowError, RecursionError) as inner:
            return _culprit(part, f"{path}{step}".removeprefix("."), inner, depth + 1)
    if isinstance(value, Mapping):
        key = next((key for key in value if not isinstance(key, str)), None)
        return path, value, "" if key is None else f"the key `{key!r}` is no text"
    # A text or a number that JSON cannot have; what has a type that it does not know is said by that.
    return path, value, str(error) if isinstance(value, str | int | float) else ""


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """How each part is reached from `value`, and the part."""
    if isinstance(value, Mapping):
        yield from ((f".{key}", part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from (("[…]", part) for part in value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value))
