"""Words of the command line as values of a JSON schema."""

from __future__ import annotations

import pytest

from pie_cli import schema

TEXT = {"type": "string"}
INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}
BOOLEAN = {"type": "boolean"}
OPTIONAL_INTEGER = {"anyOf": [INTEGER, {"type": "null"}]}
INTEGER_OR_TEXT = {"anyOf": [TEXT, INTEGER]}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (TEXT, "12", "12"),
        (INTEGER, "-12", -12),
        (NUMBER, "0.5", 0.5),
        (NUMBER, "3", 3.0),
        (BOOLEAN, "false", False),
        (BOOLEAN, "Yes", True),
        ({"enum": ["fast", 2]}, "2", 2),
        ({"const": "only"}, "only", "only"),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": "array", "prefixItems": [INTEGER, TEXT]}, '[1, "a"]', [1, "a"]),
        (OPTIONAL_INTEGER, "7", 7),
        (OPTIONAL_INTEGER, "null", None),
        (INTEGER_OR_TEXT, "7", 7),
        (INTEGER_OR_TEXT, "seven", "seven"),
        ({"type": ["string", "null"]}, "text", "text"),
        ({}, '{"a": 1}', {"a": 1}),
        ({}, "just text", "just text"),
    ],
)
def test_a_word_becomes_the_value_of_its_type(kind: dict[str, object], text: str, value: object) -> None:
    parsed = schema.parse(kind, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (INTEGER, "1.5"),
        (INTEGER, ""),
        (NUMBER, "nan"),
        (NUMBER, "inf"),
        (BOOLEAN, "maybe"),
        ({"enum": ["fast", "slow"]}, "medium"),
        ({"type": "object"}, "[1]"),
        ({"type": "object"}, "{"),
        (OPTIONAL_INTEGER, "x"),
    ],
)
def test_a_word_of_another_type_is_refused(kind: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller puts it into words
        schema.parse(kind, text)


@pytest.mark.parametrize(
    ("kind", "words", "metavar"),
    [
        (TEXT, "text", "TEXT"),
        (INTEGER, "an integer", "INTEGER"),
        (OPTIONAL_INTEGER, "an integer or null", "INTEGER"),
        (INTEGER_OR_TEXT, "text or an integer", "TEXT|INTEGER"),
        ({"enum": ["fast", "slow"]}, "one of `fast`, `slow`", "fast|slow"),
        ({"type": "object"}, "a JSON object", "JSON"),
        ({"type": "array", "items": INTEGER}, "a JSON list", "INTEGER"),
        ({"type": ["null"]}, "null", "JSON"),
        ({}, "a value", "JSON"),
    ],
)
def test_types_are_named_in_words_and_in_help(kind: dict[str, object], words: str, metavar: str) -> None:
    assert schema.expected(kind) == words
    assert schema.metavar(kind) == metavar
