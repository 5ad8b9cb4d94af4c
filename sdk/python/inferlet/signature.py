"""Typed signatures: what a function takes and returns, and its arguments from a JSON object."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from inferlet._conversion import convert, near_hint, shown
from inferlet._schema import EMPTY, Schema, default_entry, schema_of, wanted
from inferlet.errors import InvalidInput, InvalidProgram

_ARGUMENT_LINE = re.compile(r"^(?P<indent>\s+)\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?:\s*(?P<text>.*)$")
_FIELD_LINE = re.compile(r"^:param\s+(?:[^:]*\s)?(?P<name>\w+):\s*(?P<text>.*)$")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter: its annotation, its JSON schema, and its default if it has one."""

    name: str
    annotation: Any
    schema: Schema
    default: Any = EMPTY

    @property
    def is_required(self) -> bool:
        return self.default is EMPTY

    def to_dict(self) -> dict[str, Any]:
        """As `pie_engine.protocol` has it: name, schema, required, default."""
        fields: dict[str, Any] = {"name": self.name, "schema": self.schema, "required": self.is_required}
        if not self.is_required:
            fields["default"] = default_entry(self.default).get("default")
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
            parameter.name: parameter.schema | default_entry(parameter.default) for parameter in self.parameters
        }
        required = [parameter.name for parameter in self.parameters if parameter.is_required]
        return {"type": "object", "properties": properties, "required": required}

    def bind(self, values: Any) -> dict[str, Any]:
        """Keyword arguments from a JSON object: checked, converted to what the annotations say.

        Raises `InvalidInput` naming the parameter, what it wants and what came.
        """
        if not isinstance(values, Mapping):
            raise InvalidInput(f"the input of `{self.name}` is an object of its parameters; got {shown(values)}")
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
