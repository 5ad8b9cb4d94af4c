"""What a reply has to follow, and replies as Python values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inferlet import _checks, _transport
from inferlet._conversion import convert
from inferlet._schema import Schema, schema_of
from inferlet.errors import InvalidInput

_ANY_WHITESPACE: Schema = {"whitespace_flexible": True, "item_separator": ",", "key_separator": ":"}
_HINT = (
    "a type, a JSON schema, `Grammar.regex(…)`, `Grammar.lark(…)`, `Grammar.ebnf(…)` or `Grammar.choice([…])` is taken"
)


class Grammar:
    r"""What a reply has to follow, token by token: give it to `ctx.generate(grammar=…)`. Immutable; share it freely.

    >>> Grammar.json_schema({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})
    >>> Grammar.json_schema(Person)
    >>> Grammar.json()
    >>> Grammar.regex(r"\d{4}-\d{2}-\d{2}")
    >>> Grammar.choice(["yes", "no", "perhaps"])
    >>> Grammar.lark('start: NAME ("," NAME)*\nNAME: /[A-Z][a-z]+/')

    The model compiles it when it is first used and keeps it. What it cannot enforce is refused by the `generate` that
    uses it, with `InvalidInput` or `Unsupported` naming the part.
    """

    __slots__ = ("_kind", "_text")

    def __init__(self, kind: str, text: str) -> None:
        """Use the class methods; `kind` is one of `json-schema`, `regex`, `lark`, `ebnf` and `choice`."""
        self._kind = kind
        self._text = _checks.text(f"the text of a {kind} grammar", text)

    @classmethod
    def json_schema(cls, schema: Any, *, any_whitespace: bool = False) -> Grammar:
        """JSON that satisfies a schema.

        Args:
            schema: a JSON schema as a dict or as its text; a pydantic model (whatever has `model_json_schema`); or a
                type that `main` could take as a parameter: a dataclass, a `TypedDict`, `list[int]`, `Literal[…]`, …
            any_whitespace: let the model lay the JSON out. Otherwise it is one line, as `json.dumps` writes it, and
                whatever can only be one thing costs no passes.
        """
        found = _schema_of(schema)
        if any_whitespace:
            found = {**found, "x-guidance": {**_ANY_WHITESPACE, **found.get("x-guidance", {})}}
        try:
            return cls("json-schema", json.dumps(found, ensure_ascii=False))
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the JSON schema is not JSON: {error}") from None

    @classmethod
    def json(cls, *, any_whitespace: bool = False) -> Grammar:
        """A JSON object with whatever in it."""
        return cls.json_schema({"type": "object"}, any_whitespace=any_whitespace)

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """A regular expression that the whole reply matches: the syntax of Rust's `regex`, without look-around and
        back references."""
        return cls("regex", pattern)

    @classmethod
    def lark(cls, rules: str) -> Grammar:
        """Rules in Lark's syntax, from `start` on; see docs/grammar.md."""
        return cls("lark", rules)

    @classmethod
    def ebnf(cls, rules: str) -> Grammar:
        """Rules in EBNF as llama.cpp has it (GBNF), from `root` on."""
        return cls("ebnf", rules)

    @classmethod
    def choice(cls, options: Sequence[str]) -> Grammar:
        """One of these texts. Raises `InvalidInput` when there is none, or one is empty."""
        texts = [] if isinstance(options, str) else [_checks.text("a choice", option) for option in options]
        if not texts or not all(texts):
            raise InvalidInput(f"`options` has to be a list of texts, none of them empty; got {options!r}")
        return cls("choice", json.dumps(texts, ensure_ascii=False))

    @property
    def kind(self) -> str:
        """`json-schema`, `regex`, `lark`, `ebnf` or `choice`."""
        return self._kind

    @property
    def text(self) -> str:
        """The schema as JSON, the pattern, the rules, or the options as JSON: for a prompt that shows it."""
        return self._text

    def __repr__(self) -> str:
        return f"Grammar({self._kind!r}, {self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grammar) and (self._kind, self._text) == (other._kind, other._text)

    def __hash__(self) -> int:
        return hash((self._kind, self._text))

    def _record(self) -> Any:
        """As the host takes it."""
        wire = _transport.host.generate
        return wire.Grammar(wire.GrammarKind[self._kind.upper().replace("-", "_")], self._text)


def grammar_record(grammar: Any) -> Any:
    """As the host takes it; None stays None. A type or a schema stands for its JSON. Raises `InvalidInput`."""
    if grammar is None or isinstance(grammar, Grammar):
        return None if grammar is None else grammar._record()
    if isinstance(grammar, str):
        raise InvalidInput(f"`grammar` has to be a Grammar; got the text {grammar[:60]!r}", hint=_HINT)
    return Grammar.json_schema(grammar)._record()


def value_of(text: str, kind: Any) -> Any:
    """The Python value of `kind` that `text`, its JSON, stands for. Raises `InvalidInput`."""
    if hasattr(kind, "model_validate_json"):
        return kind.model_validate_json(text)
    return convert(json.loads(text), kind, "the reply")


def _schema_of(what: Any) -> Schema:
    if isinstance(what, str):
        try:
            what = json.loads(what)
        except ValueError as error:
            raise InvalidInput(f"the text of the JSON schema is not JSON: {error}", hint=_HINT) from None
    if isinstance(what, dict):
        return what
    if hasattr(what, "model_json_schema"):
        return what.model_json_schema()
    try:
        return _closed(schema_of(what))
    except TypeError as error:
        raise InvalidInput(f"no JSON schema can be made of {what!r}: {error}", hint=_HINT) from None
    except RecursionError:
        hint = "write the schema yourself, with `$defs` and `$ref`"
        raise InvalidInput(f"no JSON schema can be made of {what!r}: it contains itself", hint=hint) from None


def _closed(schema: Schema) -> Schema:
    """Objects have the fields of their class and no others, as conversion wants it."""
    found = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _closed(found[key])
    for key in ("anyOf", "prefixItems"):
        if key in found:
            found[key] = [_closed(part) for part in found[key]]
    if "properties" in found:
        found["properties"] = {name: _closed(field) for name, field in found["properties"].items()}
        found["additionalProperties"] = False
    return found
