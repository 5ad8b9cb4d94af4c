"""JSON values to what annotations ask for."""

from __future__ import annotations

import difflib
import enum
import json
import pathlib
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from inferlet._schema import ALIAS, EMPTY, QUALIFIERS, SCALARS, SEQUENCES, UNIONS, fields_of, wanted
from inferlet.errors import InvalidInput

_MAX_SHOWN = 60
"""Characters of a wrong value that a message shows."""


def convert(value: Any, annotation: Any, where: str) -> Any:
    """`value` (from JSON) as `annotation` wants it. Raises `InvalidInput` that starts with `where`."""
    if annotation is Any or annotation is EMPTY or annotation is object:
        return value
    if annotation in SCALARS or annotation is None:
        return _convert_scalar(value, annotation, where)
    if annotation is pathlib.Path:
        return pathlib.Path(_convert_scalar(value, str, where))
    origin = typing.get_origin(annotation)
    if origin is not None:
        return _convert_generic(value, origin, annotation, where)
    if annotation in SEQUENCES:
        return SEQUENCES[annotation](_expect(value, list, annotation, where))
    if annotation in (dict, Mapping):
        return _expect(value, dict, annotation, where)
    return _convert_class(value, annotation, where)


def near_hint(name: str, known: list[str]) -> str:
    """`did you mean …?`, or what there is."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"it has: {', '.join(known)}" if known else "it has none"


def _convert_scalar(value: Any, kind: Any, where: str) -> Any:
    if kind is None or kind is type(None):
        matches = value is None
    elif kind is float:
        matches = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind is int:
        matches = isinstance(value, int) and not isinstance(value, bool)
    else:
        matches = isinstance(value, kind)
    if not matches:
        _mismatch(value, kind, where)
    return float(value) if kind is float else value


def _convert_generic(value: Any, origin: Any, annotation: Any, where: str) -> Any:
    args = typing.get_args(annotation)
    if origin in (typing.Annotated, *QUALIFIERS):
        return convert(value, args[0], where)
    if origin is Literal:
        return _convert_choice(value, args, annotation, where)
    if origin in UNIONS:
        return _convert_union(value, args, annotation, where)
    if origin is tuple and not (len(args) == 2 and args[1] is ...):
        items = _expect(value, list, annotation, where)
        if len(items) != len(args):
            _mismatch(value, annotation, where)
        return tuple(convert(item, arg, f"{where}[{i}]") for i, (item, arg) in enumerate(zip(items, args, strict=True)))
    if origin in SEQUENCES:
        items = _expect(value, list, annotation, where)
        return SEQUENCES[origin]([convert(item, args[0], f"{where}[{i}]") for i, item in enumerate(items)])
    entries = _expect(value, dict, annotation, where)
    return {key: convert(item, args[1], f"{where}[{key!r}]") for key, item in entries.items()}


def _convert_choice(value: Any, choices: Sequence[Any], annotation: Any, where: str) -> Any:
    for choice in choices:
        if choice == value and type(choice) is type(value):
            return choice
    hint = near_hint(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
    return _mismatch(value, annotation, where, hint=hint if hint.startswith("did") else "")


def _convert_union(value: Any, args: Sequence[Any], annotation: Any, where: str) -> Any:
    """The first member that fits, an exact scalar before others: `1` stays an integer for `float | int`."""
    if type(value) in args:
        return value
    failures = []
    for arg in args:
        try:
            return convert(value, arg, where)
        except InvalidInput as failure:
            failures.append((arg, failure))
    inner = [failure for arg, failure in failures if arg is not type(None)]
    if len(inner) == 1 and value is not None:
        raise inner[0]
    return _mismatch(value, annotation, where)


def _convert_class(value: Any, cls: Any, where: str) -> Any:
    if isinstance(cls, ALIAS):
        return convert(value, cls.__value__, where)
    if isinstance(cls, typing.NewType):
        return convert(value, cls.__supertype__, where)
    if isinstance(cls, type) and issubclass(cls, enum.Enum):
        return cls(_convert_choice(value, [member.value for member in cls], cls, where))
    entries = _expect(value, dict, cls, where)
    fields = fields_of(cls) or {}
    for name in entries:
        if name not in fields:
            raise InvalidInput(f"{where}: {cls.__name__} has no field `{name}`", hint=near_hint(name, list(fields)))
    missing = [name for name, (_, default) in fields.items() if default is EMPTY and name not in entries]
    if missing:
        raise InvalidInput(f"{where}: {cls.__name__} needs {', '.join(f'`{name}`' for name in missing)}")
    return cls(**{name: convert(item, fields[name][0], f"{where}.{name}") for name, item in entries.items()})


def _expect(value: Any, kind: type, annotation: Any, where: str) -> Any:
    return value if isinstance(value, kind) else _mismatch(value, annotation, where)


def _mismatch(value: Any, annotation: Any, where: str, *, hint: str = "") -> typing.NoReturn:
    raise InvalidInput(f"{where} has to be {wanted(annotation)}; got {shown(value)}", hint=hint)


def shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"
