"""From the JSON schema of a parameter to the value that a word of the command line stands for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_SINGULAR = {
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a JSON list",
    "object": "a JSON object",
    "null": "null",
}
_METAVAR = {"string": "TEXT", "integer": "INTEGER", "number": "NUMBER", "boolean": "BOOLEAN"}
_STRICTEST_FIRST = ("null", "integer", "number", "boolean", "array", "object", "string", "")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def alternatives(schema: Schema) -> list[Schema]:
    """The schemas of a union; one that is none, alone."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return list(schema[key])
    kinds = schema.get("type")
    return [{**schema, "type": kind} for kind in kinds] if isinstance(kinds, list) else [schema]


def without_null(schema: Schema) -> Schema:
    """`X | None` as `X`."""
    rest = [option for option in alternatives(schema) if option.get("type") != "null"]
    return rest[0] if len(rest) == 1 else schema


def is_flag(schema: Schema) -> bool:
    return without_null(schema).get("type") == "boolean"


def is_repeatable(schema: Schema) -> bool:
    """A list whose items can be given one by one."""
    inner = without_null(schema)
    return inner.get("type") == "array" and "prefixItems" not in inner


def is_text(schema: Schema) -> bool:
    return schema.get("type") == "string" and "enum" not in schema


def item_of(schema: Schema) -> Schema:
    items: Schema = without_null(schema).get("items") or {}
    return items


def expected(schema: Schema) -> str:
    """What a value must be, as it stands after `needs`."""
    if choices := _choices(schema):
        return "one of " + ", ".join(f"`{word(choice)}`" for choice in choices)
    options = alternatives(schema)
    if len(options) > 1:
        return " or ".join(expected(option) for option in options)
    return _SINGULAR.get(options[0].get("type", ""), "a value")


def metavar(schema: Schema) -> str:
    """What stands for the value in a help text."""
    if choices := _choices(schema):
        return "|".join(word(choice) for choice in choices)
    if is_repeatable(schema):
        return metavar(item_of(schema))
    options = [option for option in alternatives(schema) if option.get("type") != "null"]
    if len(options) > 1:
        return "|".join(metavar(option) for option in options)
    return _METAVAR.get(options[0].get("type", ""), "JSON") if options else "JSON"


def word(value: object) -> str:
    """A value as one would type it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parse(schema: Schema, text: str) -> object:
    """The value of `text`. Raises `ValueError` when it is none."""
    if choices := _choices(schema):
        return _chosen(choices, text)
    options = alternatives(schema)
    if len(options) == 1:
        return _parse_kind(str(options[0].get("type", "")), text)
    for option in sorted(options, key=_strictness):
        try:
            return parse(option, text)
        except ValueError:
            continue
    raise ValueError(text)


def _choices(schema: Schema) -> list[object]:
    if "const" in schema:
        return [schema["const"]]
    return list(schema.get("enum", ()))


def _chosen(choices: list[object], text: str) -> object:
    for choice in choices:
        if word(choice) == text:
            return choice
    raise ValueError(text)


def _strictness(schema: Schema) -> int:
    kind = schema.get("type", "")
    return -1 if _choices(schema) else _STRICTEST_FIRST.index(kind if kind in _STRICTEST_FIRST else "")


def _parse_kind(kind: str, text: str) -> object:
    match kind:
        case "string":
            return text
        case "integer":
            return int(text)
        case "number":
            return _finite(float(text))
        case "boolean":
            return _truth(text)
        case "null":
            return _json_of(text, type(None))
        case "array":
            return _json_of(text, list)
        case "object":
            return _json_of(text, dict)
    return _json_or_text(text)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("JSON has no such number")
    return number


def _truth(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise ValueError(text)
    return _WORDS[text.lower()]


def _json_of(text: str, kind: type) -> object:
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(text)
    return value


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
