"""Codecs at the C boundary: what Python writes for a WIT type is what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import addressof, create_string_buffer
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import Engine
from wasmtime.component import Component, ComponentInstanceType, FuncType, ResultType, ValType

from pie_engine.host.values import (
    VALUE_BYTES,
    ResultEncoder,
    decode_text_result,
    decoder_of,
    delete_value,
    encoder_of,
)
from tests.memory import private_kb

# One function, whose parameters are the types.
COMPONENT = """
(component
  (import "test:types/all" (instance
    (type $color' (enum "red" "dark-blue"))
    (export "color" (type $color (eq $color')))
    (type $point' (record (field "x" f64) (field "is-far" bool) (field "label" string)))
    (export "point" (type $point (eq $point')))
    (type $plan' (record (field "points" (list $point)) (field "seed" (option u64)) (field "color" $color)))
    (export "plan" (type $plan (eq $plan')))
    (export "all" (func
      (param "number" u32) (param "long" u64) (param "float" f64) (param "flag" bool) (param "text" string)
      (param "numbers" (list u32)) (param "longs" (list u64)) (param "floats" (list f64)) (param "texts" (list string))
      (param "maybe" (option string)) (param "color" $color) (param "plan" $plan)
      (result (result string (error string)))))
  ))
)
"""


def types() -> dict[str, ValType]:
    engine = Engine()
    interface = Component(engine, COMPONENT).type.imports(engine)["test:types/all"].ty
    assert isinstance(interface, ComponentInstanceType)
    function = interface.exports(engine)["all"].ty
    assert isinstance(function, FuncType)
    result = function.result
    assert result is not None
    return {**dict(function.params), "result": result}


TYPES: dict[str, ValType] = {}


@pytest.fixture(scope="module", autouse=True)
def known_types() -> Iterator[None]:
    """wasmtime-py's objects complain when they outlive their module, at the end of the interpreter."""
    TYPES.update(types())
    yield
    TYPES.clear()


def round_trip(name: str, value: Any) -> Any:
    buffer = create_string_buffer(VALUE_BYTES)
    encoder_of(TYPES[name])(value, addressof(buffer))
    decoded = decoder_of(TYPES[name])(addressof(buffer))
    delete_value(addressof(buffer))
    return decoded


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", 2**32 - 1),
        ("long", 2**64 - 1),
        ("float", -0.1),
        ("flag", True),
        ("text", ""),
        ("text", "naïve 🥧\0 end"),
        ("numbers", []),
        ("numbers", [0, 1, 2**32 - 1]),
        ("longs", [2**64 - 1, 0]),
        ("floats", [0.5, float("inf")]),
        ("texts", ["a", "", "ü"]),
        ("maybe", None),
        ("maybe", "there"),
        ("color", "dark-blue"),
    ],
)
def test_what_is_written_is_read(name, value):
    assert round_trip(name, value) == value


@given(st.lists(st.integers(0, 2**32 - 1), max_size=300))
def test_lists_of_any_length(numbers):
    assert round_trip("numbers", numbers) == numbers


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text(text):
    assert round_trip("text", text) == text


def test_half_a_surrogate_pair_does_not_stop_a_text():
    assert round_trip("text", "a\ud800b") == "a?b"


def test_records_are_written_from_attributes_and_read_as_dicts():
    points = [SimpleNamespace(x=1.5, is_far=True, label="p"), SimpleNamespace(x=0.0, is_far=False, label="")]
    plan = SimpleNamespace(points=points, seed=7, color="red")
    assert round_trip("plan", plan) == {
        "points": [{"x": 1.5, "is_far": True, "label": "p"}, {"x": 0.0, "is_far": False, "label": ""}],
        "seed": 7,
        "color": "red",
    }


@pytest.mark.parametrize("is_ok", [True, False])
def test_either_side_of_a_result(is_ok):
    kind = TYPES["result"]
    assert isinstance(kind, ResultType)
    encoder, buffer = ResultEncoder(kind), create_string_buffer(VALUE_BYTES)
    (encoder.ok if is_ok else encoder.error)("text", addressof(buffer))
    assert decode_text_result(addressof(buffer)) == (is_ok, "text")
    delete_value(addressof(buffer))


def test_a_million_values_leave_nothing_behind():
    value = ["some text that is not short"] * 100
    for _ in range(100):
        round_trip("texts", value)
    before = private_kb()
    for _ in range(1000):
        round_trip("texts", value)
    assert private_kb() - before < 2000
