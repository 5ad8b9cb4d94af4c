"""Typed signatures: annotations to JSON schema, and JSON values to what the annotations ask for.

Understood: `str`, `int`, `float`, `bool`, `None`, `Any`, `list`, `tuple`, `set`, `dict[str, …]`, unions and `Optional`,
`Literal`, `Enum`, dataclasses, `TypedDict`, `pathlib.Path`, and `Annotated[…, "description"]`.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import inspect
import json
import pathlib
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from inferlet.errors import InvalidInput, InvalidProgram

Schema = dict[str, Any]
_EMPTY = inspect.Parameter.empty
_SCALARS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_NAMES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_UNIONS = (typing.Union, types.UnionType)
_SEQUENCES: dict[Any, Callable[[list], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: list,
}
# Of the fields of a TypedDict; ReadOnly came with Python 3.13.
_QUALIFIERS = (typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", typing.Required))
_ALIAS: Any = getattr(typing, "TypeAliasType", ())
_MAX_SHOWN = 60
"""Characters of a wrong value that a message shows."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter: its annotation, its JSON schema, and its default if it has one."""

    name: str
    annotation: Any
    schema: Schema
    default: Any = _EMPTY

    @property
    def is_required(self) -> bool:
        return self.default is _EMPTY

    def to_dict(self) -> dict[str, Any]:
        """As `pie_engine.protocol` has it: name, schema, required, default."""
        fields: dict[str, Any] = {"name": self.name, "schema": self.schema, "required": self.is_required}
        if not self.is_required:
            fields["default"] = _json_or_none(self.default)
        return fields


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a function takes and returns, read from its annotations and docstring."""

    name: str
    doc: str
    parameters: tuple[Parameter, ...]
    returns: Schema

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Signature:
        """Read `function`. Raises `InvalidProgram` for parameters that cannot come from a JSON object."""
        name = getattr(function, "__name__", "main")
        hints = _hints_of(function, name)
        doc = inspect.getdoc(function) or ""
        described = _parameter_docs(doc) if doc else {}
        parameters = tuple(
            _parameter(name, parameter, hints.get(parameter.name, Any), described.get(parameter.name, ""))
            for parameter in inspect.signature(function).parameters.values()
        )
        return cls(name, doc, parameters, _returns_schema(hints.get("return", Any)))

    def to_json(self) -> str:
        """As `pie_engine.protocol.program.Signature`."""
        parameters = [parameter.to_dict() for parameter in self.parameters]
        return json.dumps({"doc": self.doc, "parameters": parameters, "returns": self.returns})

    def to_schema(self) -> Schema:
        """The parameters as the JSON schema of one object."""
        properties = {
            parameter.name: parameter.schema | _default_entry(parameter.default) for parameter in self.parameters
        }
        required = [parameter.name for parameter in self.parameters if parameter.is_required]
        return {"type": "object", "properties": properties, "required": required}

    def bind(self, values: Any) -> dict[str, Any]:
        """Keyword arguments from a JSON object: checked, converted to what the annotations say.

        Raises `InvalidInput` naming the parameter, what it wants and what came.
        """
        if not isinstance(values, Mapping):
            raise InvalidInput(f"the input of `{self.name}` is an object of its parameters; got {_shown(values)}")
        self._refuse_unknown(values)
        self._refuse_missing(values)
        return {
            parameter.name: convert(values[parameter.name], parameter.annotation, f"`{parameter.name}`")
            for parameter in self.parameters
            if parameter.name in values
        }

    def _refuse_unknown(self, values: Mapping[str, Any]) -> None:
        known = [parameter.name for parameter in self.parameters]
        for name in values:
            if name not in known:
                raise InvalidInput(f"`{self.name}` has no parameter `{name}`", hint=near_hint(name, known))

    def _refuse_missing(self, values: Mapping[str, Any]) -> None:
        missing = [p for p in self.parameters if p.is_required and p.name not in values]
        if missing:
            listing = ", ".join(f"`{p.name}` ({wanted(p.annotation)})" for p in missing)
            plural = "parameters" if len(missing) > 1 else "parameter"
            raise InvalidInput(f"`{self.name}` needs the {plural} {listing}")


def dump_json(value: Any) -> str:
    """A value as JSON; dataclasses, enums, sets and paths become what JSON has.

    Raises `TypeError` or `ValueError` (NaN, infinity, cycles) for what it does not have.
    """
    return json.dumps(value, default=_plain, allow_nan=False)


def readable_json(value: Any) -> str:
    """`dump_json` for a model to read: every character as itself."""
    return json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False)


def schema_of(annotation: Any) -> Schema:
    """The JSON schema of an annotation. Raises `TypeError` for types that JSON cannot carry."""
    if annotation is Any or annotation is _EMPTY or annotation is object:
        return {}
    if annotation in _SCALARS:
        return {"type": _SCALARS[annotation]}
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


def convert(value: Any, annotation: Any, where: str) -> Any:
    """`value` (from JSON) as `annotation` wants it. Raises `InvalidInput` that starts with `where`."""
    if annotation is Any or annotation is _EMPTY or annotation is object:
        return value
    if annotation in _SCALARS or annotation is None:
        return _convert_scalar(value, annotation, where)
    if annotation is pathlib.Path:
        return pathlib.Path(_convert_scalar(value, str, where))
    origin = typing.get_origin(annotation)
    if origin is not None:
        return _convert_generic(value, origin, annotation, where)
    if annotation in _SEQUENCES:
        return _SEQUENCES[annotation](_expect(value, list, annotation, where))
    if annotation in (dict, Mapping):
        return _expect(value, dict, annotation, where)
    return _convert_class(value, annotation, where)


def wanted(annotation: Any) -> str:
    """An annotation in words: `an integer`, `a list of strings`, `one of "a", "b"`."""
    try:
        return _in_words(schema_of(annotation))
    except TypeError:
        return str(annotation)


def near_hint(name: str, known: list[str]) -> str:
    """`did you mean …?`, or what there is."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"it has: {', '.join(known)}" if known else "it has none"


# Schemas.


def _generic_schema(origin: Any, annotation: Any) -> Schema:
    args = typing.get_args(annotation)
    if origin is typing.Annotated:
        texts = [extra for extra in args[1:] if isinstance(extra, str)]
        return schema_of(args[0]) | ({"description": texts[0]} if texts else {})
    if origin is Literal:
        return _enum_schema(list(args))
    if origin in _UNIONS:
        return {"anyOf": [schema_of(arg) for arg in args]}
    if origin in _QUALIFIERS:
        return schema_of(args[0])
    if origin is tuple and not (len(args) == 2 and args[1] is ...):
        return {"type": "array", "prefixItems": [schema_of(arg) for arg in args], "items": False, "minItems": len(args)}
    if origin in _SEQUENCES:
        return {"type": "array", "items": schema_of(args[0])}
    if origin in (dict, Mapping):
        if args[0] is not str:
            raise TypeError("keys of a dict have to be str")
        return {"type": "object", "additionalProperties": schema_of(args[1])}
    raise TypeError(f"{annotation} cannot come from JSON")


def _class_schema(cls: Any) -> Schema:
    if isinstance(cls, _ALIAS):
        return schema_of(cls.__value__)
    if isinstance(cls, typing.NewType):
        return schema_of(cls.__supertype__)
    if isinstance(cls, type) and issubclass(cls, enum.Enum):
        return _enum_schema([member.value for member in cls]) | {"title": cls.__name__}
    fields = _fields_of(cls)
    if fields is None:
        raise TypeError(f"{getattr(cls, '__name__', cls)} cannot come from JSON")
    properties = {name: schema_of(hint) | _default_entry(default) for name, (hint, default) in fields.items()}
    required = [name for name, (_, default) in fields.items() if default is _EMPTY]
    doc = {"description": inspect.getdoc(cls)} if _has_own_doc(cls) else {}
    return {"title": cls.__name__, "type": "object", "properties": properties, "required": required} | doc


def _enum_schema(values: list[Any]) -> Schema:
    kinds = {_SCALARS.get(type(value)) for value in values}
    if None in kinds:
        raise TypeError(f"{values} are not all strings, numbers or booleans")
    return {"enum": values} | ({"type": kinds.pop()} if len(kinds) == 1 else {})


def _has_own_doc(cls: type) -> bool:
    doc = cls.__doc__ or ""
    return bool(doc) and not doc.startswith(f"{cls.__name__}(")


class _Optional:
    """Default of a field that may be left out and then is not there at all."""


def _fields_of(cls: Any) -> dict[str, tuple[Any, Any]] | None:
    """Annotation and default by name of a dataclass or TypedDict; None for other classes."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        fields = [field for field in dataclasses.fields(cls) if field.init]
        return {field.name: (hints[field.name], _field_default(field)) for field in fields}
    if typing.is_typeddict(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return {name: (hint, _EMPTY if _is_required(cls, name, hint) else _Optional) for name, hint in hints.items()}
    return None


def _is_required(cls: Any, name: str, hint: Any) -> bool:
    """Of a TypedDict's key. `__required_keys__` alone is wrong where annotations are strings."""
    origin = typing.get_origin(hint)
    return origin is typing.Required or (origin is not typing.NotRequired and name in cls.__required_keys__)


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return _EMPTY if field.default_factory is dataclasses.MISSING else field.default_factory()


def _default_entry(default: Any) -> Schema:
    if default is _EMPTY or default is _Optional:
        return {}
    try:
        return {"default": json.loads(dump_json(default))}
    except (TypeError, ValueError):
        return {}


# Conversion.


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
    if origin in (typing.Annotated, *_QUALIFIERS):
        return convert(value, args[0], where)
    if origin is Literal:
        return _convert_choice(value, args, annotation, where)
    if origin in _UNIONS:
        return _convert_union(value, args, annotation, where)
    if origin is tuple and not (len(args) == 2 and args[1] is ...):
        items = _expect(value, list, annotation, where)
        if len(items) != len(args):
            _mismatch(value, annotation, where)
        return tuple(convert(item, arg, f"{where}[{i}]") for i, (item, arg) in enumerate(zip(items, args, strict=True)))
    if origin in _SEQUENCES:
        items = _expect(value, list, annotation, where)
        return _SEQUENCES[origin]([convert(item, args[0], f"{where}[{i}]") for i, item in enumerate(items)])
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
    if isinstance(cls, _ALIAS):
        return convert(value, cls.__value__, where)
    if isinstance(cls, typing.NewType):
        return convert(value, cls.__supertype__, where)
    if isinstance(cls, type) and issubclass(cls, enum.Enum):
        return cls(_convert_choice(value, [member.value for member in cls], cls, where))
    entries = _expect(value, dict, cls, where)
    fields = _fields_of(cls) or {}
    for name in entries:
        if name not in fields:
            raise InvalidInput(f"{where}: {cls.__name__} has no field `{name}`", hint=near_hint(name, list(fields)))
    missing = [name for name, (_, default) in fields.items() if default is _EMPTY and name not in entries]
    if missing:
        raise InvalidInput(f"{where}: {cls.__name__} needs {', '.join(f'`{name}`' for name in missing)}")
    return cls(**{name: convert(item, fields[name][0], f"{where}.{name}") for name, item in entries.items()})


def _expect(value: Any, kind: type, annotation: Any, where: str) -> Any:
    return value if isinstance(value, kind) else _mismatch(value, annotation, where)


def _mismatch(value: Any, annotation: Any, where: str, *, hint: str = "") -> typing.NoReturn:
    raise InvalidInput(f"{where} has to be {wanted(annotation)}; got {_shown(value)}", hint=hint)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


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


# Reading functions.


def _hints_of(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # annotations are code: anything can come out of them
        raise InvalidProgram(f"the annotations of `{name}` cannot be read: {type(error).__name__}: {error}") from error


def _parameter(function: str, parameter: inspect.Parameter, annotation: Any, description: str) -> Parameter:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise InvalidProgram(
            f"`{function}` cannot take `{parameter}`: its arguments come from an object, by name",
            hint="give each parameter a name of its own",
        )
    try:
        schema = schema_of(annotation)
    except TypeError as error:
        hint = "use str, int, float, bool, list, dict, Literal, an Enum, a dataclass or a TypedDict"
        raise InvalidProgram(f"parameter `{parameter.name}` of `{function}`: {error}", hint=hint) from None
    if description and "description" not in schema:
        schema = {**schema, "description": description}
    return Parameter(parameter.name, annotation, schema, parameter.default)


def _returns_schema(annotation: Any) -> Schema:
    try:
        return schema_of(annotation)
    except TypeError:
        return {}


_ARGUMENT_LINE = re.compile(r"^(?P<indent>\s+)\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?:\s*(?P<text>.*)$")
_FIELD_LINE = re.compile(r"^:param\s+(?:[^:]*\s)?(?P<name>\w+):\s*(?P<text>.*)$")


def _parameter_docs(doc: str) -> dict[str, str]:
    """Descriptions from an `Args:` section or `:param name:` lines."""
    found: dict[str, str] = {}
    inside, name, indent = False, "", ""
    for line in doc.splitlines():
        field = _FIELD_LINE.match(line)
        if field:
            found[field["name"]] = field["text"].strip()
        elif re.match(r"^(Args|Arguments|Parameters):\s*$", line):
            inside = True
        elif inside and line.strip() and not line[0].isspace():
            inside = False
        elif inside:
            entry = _ARGUMENT_LINE.match(line)
            if entry and (not indent or entry["indent"] == indent):
                name, indent = entry["name"], entry["indent"]
                found[name] = entry["text"].strip()
            elif name and line.strip():
                found[name] = f"{found[name]} {line.strip()}"
    return found


# Plain values.


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


def _json_or_none(value: Any) -> Any:
    return _default_entry(value).get("default")
