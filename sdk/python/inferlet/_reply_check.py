"""Whether a reply that a test scripts could have been written under the grammar of its `generate`."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from inferlet.errors import InvalidInput

_JSON_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip


def check_reply(reply: str, kind: str, text: str) -> None:
    """Raises `InvalidInput` for a reply that a model could not have written under this grammar.

    Not all are found: of a JSON schema what `_misfit` looks at, of Lark and EBNF rules nothing.
    """
    wrong = ""
    match kind:
        case "JSON_SCHEMA":
            wrong = _json_misfit(reply, json.loads(text))
        case "CHOICE":
            wrong = "" if reply in json.loads(text) else "it is none of the choices"
        case "REGEX":
            with contextlib.suppress(re.error):  # Python's own syntax differs a little
                wrong = "" if re.fullmatch(text, reply) else "the pattern does not match the whole of it"
    if wrong:
        raise InvalidInput(
            f"the test's reply {reply!r} does not follow the grammar of this `generate`: {wrong}",
            hint="the engine would never write it; correct `replies=`",
        )


def _json_misfit(reply: str, schema: dict[str, Any]) -> str:
    try:
        return _misfit(json.loads(reply), schema, "it")
    except ValueError as error:
        return f"it is not JSON ({error})"


def _misfit(value: Any, schema: Any, where: str) -> str:
    """What is wrong with a value, by its type, its choices, its fields and its items."""
    if not isinstance(schema, dict):
        return ""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_of(value, kind) for kind in kinds):
        return f"{where} should be of type {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} should be one of {schema['enum']}"
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        missing = [name for name in schema.get("required", []) if name not in value]
        unknown = [name for name in value if name not in properties and "patternProperties" not in schema]
        if missing or (unknown and schema.get("additionalProperties") is False):
            return f"{where} has no {missing[0]!r}" if missing else f"{where} has an unknown {unknown[0]!r}"
        found = (_misfit(item, properties.get(name), f"{where}[{name!r}]") for name, item in value.items())
        return next(filter(None, found), "")
    if isinstance(value, list):
        found = (_misfit(item, schema.get("items"), f"{where}[{index}]") for index, item in enumerate(value))
        return next(filter(None, found), "")
    return ""


def _is_of(value: Any, kind: str) -> bool:
    is_bool = isinstance(value, bool)
    return isinstance(value, _JSON_TYPES.get(kind, object)) and (is_bool == (kind == "boolean"))
