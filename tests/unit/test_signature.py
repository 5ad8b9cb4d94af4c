"""Typed signatures: schemas from annotations, arguments from JSON, and errors a newcomer understands."""

from __future__ import annotations

import enum
import json
import pathlib
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from inferlet._plain_json import dump_json
from inferlet.errors import InvalidInput, InvalidProgram
from inferlet.signature import Signature
from pie_engine.protocol import program as protocol


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Options:
    """How to search."""

    depth: int
    tags: list[str] = field(default_factory=list)


class Row(TypedDict):
    name: str
    note: NotRequired[str]


def of(annotation: Any) -> Signature:
    async def main(value):
        return value

    main.__annotations__ = {"value": annotation}
    return Signature.of(main)


def schema_of(annotation: Any) -> dict[str, Any]:
    return of(annotation).parameters[0].schema


def convert(annotation: Any, value: Any) -> Any:
    return of(annotation).bind({"value": value})["value"]


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (str | None, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (Literal["a", "b"], {"enum": ["a", "b"], "type": "string"}),
        (Colour, {"enum": ["red", "blue"], "type": "string", "title": "Colour"}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (pathlib.Path, {"type": "string"}),
        (
            Row,
            {
                "title": "Row",
                "type": "object",
                "properties": {"name": {"type": "string"}, "note": {"type": "string"}},
                "required": ["name"],
            },
        ),
        (
            Options,
            {
                "title": "Options",
                "type": "object",
                "properties": {
                    "depth": {"type": "integer"},
                    "tags": {"type": "array", "items": {"type": "string"}, "default": []},
                },
                "required": ["depth"],
                "description": "How to search.",
            },
        ),
    ],
)
def test_schemas(annotation, schema):
    assert schema_of(annotation) == schema


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (float, 3, 3.0),
        (set[str], ["a", "a"], {"a"}),
        (tuple[int, str], [1, "x"], (1, "x")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (int | str, "7", "7"),
        (float | int, 1, 1),
        (str | None, None, None),
        (Colour, "blue", Colour.BLUE),
        (Options, {"depth": 2}, Options(2, [])),
        (list[Options], [{"depth": 1, "tags": ["x"]}], [Options(1, ["x"])]),
        (Row, {"name": "n"}, {"name": "n"}),
        (pathlib.Path, "a/b", pathlib.Path("a/b")),
        (dict[str, Colour], {"k": "red"}, {"k": Colour.RED}),
    ],
)
def test_values_are_converted(annotation, value, expected):
    got = convert(annotation, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "many", '`value` has to be an integer; got "many"'),
        (int, True, "`value` has to be an integer; got true"),
        (int, 1.5, "`value` has to be an integer; got 1.5"),
        (str, 5, "`value` has to be a string; got 5"),
        (bool, 1, "`value` has to be true or false; got 1"),
        (list[int], 3, "`value` has to be a list of integers; got 3"),
        (list[int], [1, "x"], '`value`[1] has to be an integer; got "x"'),
        (int | None, "x", '`value` has to be an integer; got "x"'),
        (int | bool, "x", '`value` has to be an integer or true or false; got "x"'),
        (Literal["fast", "slow"], "fats", '`value` has to be one of "fast", "slow"; got "fats"'),
        (Options, {"depth": "deep"}, '`value`.depth has to be an integer; got "deep"'),
        (Options, {}, "`value`: Options needs `depth`"),
        (Options, {"depth": 1, "tag": []}, "`value`: Options has no field `tag`"),
        (str, ["x" * 200], f'`value` has to be a string; got ["{"x" * 57}…'),
    ],
)
def test_wrong_values_name_the_parameter_and_both_sides(annotation, value, message):
    with pytest.raises(InvalidInput) as caught:
        convert(annotation, value)
    assert caught.value.message == message


def test_a_wrong_choice_names_the_nearest():
    with pytest.raises(InvalidInput) as caught:
        convert(Literal["fast", "slow"], "fats")
    assert caught.value.hint == "did you mean `fast`?"


async def story(prompt: str, max_tokens: int = 128, style: Colour = Colour.RED) -> list[str]:
    """Tell a story.

    Args:
        prompt: What it is about,
            in a few words.
        max_tokens (int): How long.
    """
    return [prompt]


def test_unknown_parameters_name_the_nearest():
    with pytest.raises(InvalidInput) as caught:
        Signature.of(story).bind({"promt": "x"})
    assert caught.value.message == "`story` has no parameter `promt`"
    assert caught.value.hint == "did you mean `prompt`?"


def test_missing_parameters_are_all_named():
    async def main(a: int, b: list[str], c: int = 1): ...

    with pytest.raises(InvalidInput) as caught:
        Signature.of(main).bind({})
    assert caught.value.message == "`main` needs the parameters `a` (an integer), `b` (a list of strings)"


def test_input_that_is_no_object_is_refused():
    with pytest.raises(InvalidInput, match="is an object of its parameters; got 3"):
        Signature.of(story).bind(3)


def test_the_wire_form_is_the_protocols():
    import msgspec

    wire = msgspec.json.decode(Signature.of(story).to_json(), type=protocol.Signature)
    assert [parameter.name for parameter in wire.parameters] == ["prompt", "max_tokens", "style"]
    assert wire.parameters[0].schema == {"type": "string", "description": "What it is about, in a few words."}
    assert [parameter.required for parameter in wire.parameters] == [True, False, False]
    assert [parameter.default for parameter in wire.parameters] == [None, 128, "red"]
    assert wire.doc.startswith("Tell a story.")
    assert wire.returns == {"type": "array", "items": {"type": "string"}}


def test_parameters_without_annotations_take_anything():
    def main(x, y=2): ...

    assert Signature.of(main).bind({"x": [1]}) == {"x": [1]}


@pytest.mark.parametrize("source", ["*args", "**kwargs", "x, /"])
def test_parameters_that_have_no_name_of_their_own_are_refused(source):
    scope: dict[str, Any] = {}
    exec(f"async def main({source}): ...", scope)
    with pytest.raises(InvalidProgram, match="its arguments come from an object, by name"):
        Signature.of(scope["main"])


def test_annotations_that_json_cannot_carry_are_refused():
    with pytest.raises(InvalidProgram) as caught:
        of(complex)
    assert caught.value.message == "parameter `value` of `main`: complex cannot come from JSON"
    assert "dataclass" in caught.value.hint


def test_annotations_that_do_not_exist_are_refused():
    with pytest.raises(InvalidProgram, match="NameError: name 'Missing' is not defined"):
        of("Missing")


def test_results_become_json():
    value = {"o": Options(1, ["t"]), "c": Colour.RED, "s": {"b", "a"}, "p": pathlib.Path("x/y"), "t": (1, None)}
    assert json.loads(dump_json(value)) == {
        "o": {"depth": 1, "tags": ["t"]},
        "c": "red",
        "s": ["a", "b"],
        "p": "x/y",
        "t": [1, None],
    }


@pytest.mark.parametrize(("value", "error"), [(object(), TypeError), (float("nan"), ValueError), (b"x", TypeError)])
def test_results_that_are_not_json_are_an_error(value, error):
    with pytest.raises(error):
        dump_json(value)
