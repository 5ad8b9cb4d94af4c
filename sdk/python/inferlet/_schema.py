"""Annotations to JSON schema, and a schema in words.

Understood: `str`, `int`, `float`, `bool`, `None`, `Any`, `list`, `tuple`, `set`, `dict[str, …]`, unions and `Optional`,
`Literal`, `Enum`, dataclasses, `TypedDict`, `pathlib.Path`, and `Annotated[…, "description"]`.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import pathlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from inferlet._plain_json import dump_json

Schema = dict[str, Any]
EMPTY = inspect.Parameter.empty
SCALARS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_NAMES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
UNIONS = (typing.Union, types.UnionType)
SEQUENCES: dict[Any, Callable[[list], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: list,
}
# Of the fields of a TypedDict; ReadOnly came with Python 3.13.
QUALIFIERS = (typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", typing.Required))
ALIAS: Any = getattr(typing, "TypeAliasType", ())


def schema_of(annotation: Any) -> Schema:
    """The JSON schema of an annotation. Raises `TypeError` for types that JSON cannot carry."""
    if annotation is Any or annotation is EMPTY or annotation is object:
        return {}
    if annotation in SCALARS:
        return {"type": SCALARS[annotation]}
    if annotation is None:
        return {"type": "null"}
    if annotation is pathlib.Path:
        return {"type": "string"}
    origin = typing.get_origin(annotation)
    if origin is not None:
        return _generic_schema(origin, annotation)
    if annotation in (list, tuple, set, frozenset):
        return {"type": "array"}
    if annotation in (dict, Mapping):
        return {"type": "object"}
    return _class_schema(annotation)


def wanted(annotation: Any) -> str:
    """An annotation in words: `an integer`, `a list of strings`, `one of "a", "b"`."""
    try:
        return _in_words(schema_of(annotation))
    except TypeError:
        return str(annotation)


def _generic_schema(origin: Any, annotation: Any) -> Schema:
    args = typing.get_args(annotation)
    if origin is typing.Annotated:
        texts = [extra for extra in args[1:] if isinstance(extra, str)]
        return schema_of(args[0]) | ({"description": texts[0]} if texts else {})
    if origin is Literal:
        return _enum_schema(list(args))
    if origin in UNIONS:
        return {"anyOf": [schema_of(arg) for arg in args]}
    if origin in QUALIFIERS:
        return schema_of(args[0])
    if origin is tuple and not (len(args) == 2 and args[1] is ...):
        return {"type": "array", "prefixItems": [schema_of(arg) for arg in args], "items": False, "minItems": len(args)}
    if origin in SEQUENCES:
        return {"type": "array", "items": schema_of(args[0])}
    if origin in (dict, Mapping):
        if args[0] is not str:
            raise TypeError("keys of a dict have to be str")
        return {"type": "object", "additionalProperties": schema_of(args[1])}
    raise TypeError(f"{annotation} cannot come from JSON")


def _class_schema(cls: Any) -> Schema:
    if isinstance(cls, ALIAS):
        return schema_of(cls.__value__)
    if isinstance(cls, typing.NewType):
        return schema_of(cls.__supertype__)
    if isinstance(cls, type) and issubclass(cls, enum.Enum):
        return _enum_schema([member.value for member in cls]) | {"title": cls.__name__}
    fields = fields_of(cls)
    if fields is None:
        raise TypeError(f"{getattr(cls, '__name__', cls)} cannot come from JSON")
    properties = {name: schema_of(hint) | default_entry(default) for name, (hint, default) in fields.items()}
    required = [name for name, (_, default) in fields.items() if default is EMPTY]
    doc = {"description": inspect.getdoc(cls)} if _has_own_doc(cls) else {}
    return {"title": cls.__name__, "type": "object", "properties": properties, "required": required} | doc


def _enum_schema(values: list[Any]) -> Schema:
    kinds = {SCALARS.get(type(value)) for value in values}
    if None in kinds:
        raise TypeError(f"{values} are not all strings, numbers or booleans")
    return {"enum": values} | ({"type": kinds.pop()} if len(kinds) == 1 else {})


def _has_own_doc(cls: type) -> bool:
    doc = cls.__doc__ or ""
    return bool(doc) and not doc.startswith(f"{cls.__name__}(")


class _Optional:
    """Default of a field that may be left out and then is not there at all."""


def fields_of(cls: Any) -> dict[str, tuple[Any, Any]] | None:
    """Annotation and default by name of a dataclass or TypedDict; None for other classes."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        fields = [field for field in dataclasses.fields(cls) if field.init]
        return {field.name: (hints[field.name], _field_default(field)) for field in fields}
    if typing.is_typeddict(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return {name: (hint, EMPTY if _is_required(cls, name, hint) else _Optional) for name, hint in hints.items()}
    return None


def _is_required(cls: Any, name: str, hint: Any) -> bool:
    """Of a TypedDict's key. `__required_keys__` alone is wrong where annotations are strings."""
    origin = typing.get_origin(hint)
    return origin is typing.Required or (origin is not typing.NotRequired and name in cls.__required_keys__)


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return EMPTY if field.default_factory is dataclasses.MISSING else field.default_factory()


def default_entry(default: Any) -> Schema:
    """What a schema says of a default; nothing where there is none, or none that JSON has."""
    if default is EMPTY or default is _Optional:
        return {}
    try:
        return {"default": json.loads(dump_json(default))}
    except (TypeError, ValueError):
        return {}


def _in_words(schema: Schema) -> str:
    if "enum" in schema:
        return f"one of {', '.join(json.dumps(value, ensure_ascii=False) for value in schema['enum'])}"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_in_words(part) for part in schema["anyOf"]))
    if "prefixItems" in schema:
        return f"a list of {len(schema['prefixItems'])} items"
    if schema.get("type") == "array":
        return f"a list of {_plural(schema['items'])}" if schema.get("items") else "a list"
    if schema.get("type") == "object":
        return f"an object ({schema['title']})" if "title" in schema else "an object"
    return _NAMES.get(schema.get("type", ""), "any value")


def _plural(schema: Schema) -> str:
    if "enum" in schema:
        return f"items, each {_in_words(schema)}"
    return {"boolean": "booleans", "object": "objects"}.get(kind := schema.get("type", "item"), f"{kind}s")
