"""What is wrong with a configuration, in a sentence: where it stands, what is there, and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from pie_engine.errors import InvalidConfig

MAX_SHOWN_CHARS = 60

_PATH = re.compile(r"at `\$\.(.+)`$")
_STEP = re.compile(r"\[\.\.\.\]|[^.\[\]]+")
_SOME_NAME = "[...]"
"""What msgspec writes for a key of a table whose keys are not ours."""


def explained(
    error: msgspec.ValidationError,
    data: Mapping[str, Any],
    root: type[msgspec.Struct],
    place_of: Callable[[str], str],
) -> InvalidConfig:
    """`error` as a user can use it: which of `data` is not what the struct `root` asks for.

    place_of: where a setting stands.
    """
    found = _PATH.search(str(error))
    if found is None:
        return InvalidConfig(f"{place_of('')}: {error}")
    value, kind, default, path = _walk(data, inspect.type_info(root), found[1])
    return InvalidConfig(
        f"{place_of(path)}: `{path}` is {_shown(value)}; it must be {_wanted(kind)}",
        hint=_way_out(path, value, kind, default),
    )


def _way_out(path: str, value: Any, kind: inspect.Type, default: Any) -> str:
    if isinstance(kind, inspect.VarTupleType) and isinstance(value, Mapping):
        return f"write `[[{path}]]` above each of them"
    return f"unset it for the default, {_shown(default)}" if _is_plain(default) else ""


def allowed(kind: inspect.Type) -> str:
    """The range or the choices of a setting, for a table; empty where anything goes."""
    if isinstance(kind, inspect.IntType | inspect.FloatType) and kind.ge is not None and kind.le is not None:
        return f"{_number(kind.ge)} to {_number(kind.le)}"
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(f"`{choice}`" for choice in kind.values)
    return ""


def _wanted(kind: inspect.Type) -> str:
    match kind:
        case inspect.IntType():
            return f"a whole number, {allowed(kind)}"
        case inspect.FloatType():
            return f"a number, {allowed(kind)}"
        case inspect.BoolType():
            return "`true` or `false`"
        case inspect.LiteralType():
            return f"one of {allowed(kind)}"
        case inspect.StrType():
            return "text in quotes" + (", and not empty" if kind.min_length else "")
        case inspect.DictType():
            is_text = isinstance(kind.value_type, inspect.StrType)
            return "a table of names, each with text in quotes" if is_text else "a table of tables"
        case inspect.VarTupleType():
            return "a list of tables, and not empty"
        case _:
            return "a table"


def _walk(value: Any, kind: inspect.Type, path: str) -> tuple[Any, inspect.Type, Any, str]:
    """Value, type and default at the end of `path`, and the path with the names that msgspec leaves out."""
    default: Any = msgspec.NODEFAULT
    for step in _STEP.findall(path):
        if isinstance(kind, inspect.VarTupleType):
            value, kind, default = value[int(step)], kind.item_type, msgspec.NODEFAULT
        elif isinstance(kind, inspect.DictType):
            if not isinstance(kind.value_type, inspect.StructType):
                path = path.replace(_SOME_NAME, "")
                break
            name = _wrong_entry(value, kind.value_type)
            path = path.replace(_SOME_NAME, f".{name}", 1)
            value, kind, default = value[name], kind.value_type, msgspec.NODEFAULT
        else:
            assert isinstance(kind, inspect.StructType)
            field = next(field for field in kind.fields if field.name == step)
            value, kind, default = value[step], field.type, field.default
    return value, kind, default, path


def _wrong_entry(table: Mapping[str, Any], kind: inspect.StructType) -> str:
    """The first name whose entry is not what `kind` asks for."""
    for name, entry in table.items():
        try:
            msgspec.convert(entry, kind.cls)
        except msgspec.ValidationError:
            return name
    raise AssertionError(f"every entry of {table!r} is right")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
