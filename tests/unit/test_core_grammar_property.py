"""Whatever schema: every reply that is drawn under it, steered or not, satisfies it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pie_engine.grammar.compile import Compiler
from pie_engine.protocol.plan import Grammar
from tests.unit.core_rig import RANDOM, Rig, byte_tokenizer
from tests.unit.test_core_grammar import run, settle

NAMES = st.sampled_from(["a", "bc", "zip code", "é", 'q"', "\\n"])
NUMBERS = st.integers(-1000, 1000)

integers = st.tuples(NUMBERS, st.integers(0, 300)).map(
    lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
)
strings = st.tuples(st.integers(0, 2), st.integers(0, 4)).map(
    lambda pair: {"type": "string", "minLength": pair[0], "maxLength": pair[0] + pair[1]}
)
choices = st.lists(st.one_of(NAMES, NUMBERS, st.none(), st.booleans()), min_size=1, max_size=4, unique_by=repr).map(
    lambda values: {"enum": values}
)
plain = st.one_of(integers, strings, choices, st.sampled_from([{"type": "boolean"}, {"type": "null"}]))


def _array(items: Any, low: int, more: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": low, "maxItems": low + more}


def _object(fields: dict[str, Any], optional: set[str]) -> dict[str, Any]:
    required = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


schemas = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.builds(_array, inner, st.integers(0, 2), st.integers(0, 2)),
        st.builds(_object, st.dictionaries(NAMES, inner, max_size=3), st.sets(NAMES, max_size=2)),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
    ),
    max_leaves=5,
)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """JSON Schema, as far as `schemas` goes."""
    if "anyOf" in schema:
        return any(fits(value, part) for part in schema["anyOf"])
    if "enum" in schema:
        return any(value == choice and type(value) is type(choice) for choice in schema["enum"])
    match schema["type"]:
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "string":
            return isinstance(value, str) and schema["minLength"] <= len(value) <= schema["maxLength"]
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            is_long_enough = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
            return is_long_enough and all(fits(item, schema["items"]) for item in value)
        case _:
            names = schema["properties"]
            return set(schema["required"]) <= set(value) <= set(names) and all(fits(value[k], names[k]) for k in value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(schema=schemas, seed=st.integers(0, 2**32), keep=st.integers(0, 60), at_step=st.integers(0, 12))
def test_every_reply_satisfies_its_schema_also_after_a_rewind(schema, seed, keep, at_step):
    rig = Rig(num_pages=1024)
    plan = {"sampler": RANDOM, "seed": seed, "grammar": Grammar("json-schema", json.dumps(schema))}
    straight, steered = (rig.generate(rig.context("ab"), **plan) for _ in range(2))
    settle(rig)
    rig.step(at_step, after_s=0.1)
    heard = rig.heard.get(steered)
    rig.steer(steered, min(keep, len(heard.ids) if heard else 0))
    run(rig)
    for op in (straight, steered):
        assert rig.heard[op].finish == "stop", rig.heard[op]
        assert fits(json.loads(rig.heard[op].text), schema), (rig.heard[op].text, schema)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(text=st.text(max_size=6), data=st.data())
def test_the_matcher_takes_what_python_writes_and_gives_it_back(text, data):
    tokenizer = byte_tokenizer()
    compilation = Compiler(tokenizer, tokenizer.vocab_size).compile(Grammar("json-schema", '{"type": "string"}'))
    compilation._future.result(10)
    matcher = compilation.matcher()
    tokens = tokenizer.encode(json.dumps(text, ensure_ascii=False), special=False)
    assert matcher.num_fitting(tokens) == len(tokens)
    cut = data.draw(st.integers(0, len(tokens)))
    for token in tokens[:cut]:
        assert matcher.take(token)
    matcher.rewind(cut)
    assert matcher.num_fitting(tokens) == len(tokens)
