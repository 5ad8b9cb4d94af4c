"""Grammars of the SDK, and replies as values, against its fake host."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Literal, NotRequired, TypedDict

import pytest

from inferlet import Context, Grammar, InvalidInput, Sampler, _transport
from inferlet.testing import FakeHost, run_inferlet


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Pet:
    name: str
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Person:
    name: str
    age: int
    pets: list[Pet]
    nick: str | None = None


class Place(TypedDict):
    city: str
    zip: NotRequired[str]


@dataclasses.dataclass
class Tree:
    children: list[Tree]


class Model:
    """What pydantic's classes have."""

    def __init__(self, x: int) -> None:
        self.x = x

    @classmethod
    def model_json_schema(cls) -> dict:
        return {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}

    @classmethod
    def model_validate_json(cls, text: str) -> Model:
        return cls(**json.loads(text))


def sent(grammar, reply="{}"):
    """The grammar of a `generate` as the host gets it."""
    plans = []

    async def main():
        host: FakeHost = _transport.host
        start = host.generate.start
        host.generate.start = lambda ctx, plan: plans.append(plan) or start(ctx, plan)
        await Context().append("x").generate(grammar=grammar)

    run_inferlet(main, replies=[reply])
    return plans[0].grammar


def schema(what, **options) -> dict:
    return json.loads(Grammar.json_schema(what, **options).text)


# Making one.


@pytest.mark.parametrize(
    ("grammar", "kind", "text", "reply"),
    [
        (Grammar.json_schema({"type": "integer"}), "JSON_SCHEMA", '{"type": "integer"}', "3"),
        (Grammar.json(), "JSON_SCHEMA", '{"type": "object"}', '{"a": 1}'),
        (Grammar.regex(r"\d+"), "REGEX", r"\d+", "12"),
        (Grammar.lark('start: "x"'), "LARK", 'start: "x"', "x"),
        (Grammar.ebnf('root ::= "x"'), "EBNF", 'root ::= "x"', "x"),
        (Grammar.choice(["ja", "né"]), "CHOICE", '["ja", "né"]', "né"),
        ({"type": "integer"}, "JSON_SCHEMA", '{"type": "integer"}', "3"),
        (list[int], "JSON_SCHEMA", '{"type": "array", "items": {"type": "integer"}}', "[1]"),
        (Model, "JSON_SCHEMA", json.dumps(Model.model_json_schema()), '{"x": 1}'),
    ],
)
def test_every_kind_reaches_the_host_with_its_text(grammar, kind, text, reply):
    record = sent(grammar, reply)
    assert (record.kind.name, record.text) == (kind, text)


def test_without_a_grammar_there_is_none():
    assert sent(None) is None


def test_grammars_compare_by_what_they_say_and_show_it():
    assert Grammar.regex("a") == Grammar.regex("a") != Grammar.lark("a")
    assert len({Grammar.regex("a"), Grammar.regex("a"), Grammar.regex("b")}) == 2
    assert repr(Grammar.choice(["a"])) == "Grammar('choice', '[\"a\"]')"
    assert Grammar.json().kind == "json-schema"


def test_the_schema_of_a_class_takes_its_fields_and_no_others():
    found = schema(Person)
    assert found["required"] == ["name", "age", "pets"]
    assert found["additionalProperties"] is False
    pet = found["properties"]["pets"]["items"]
    assert pet["additionalProperties"] is False
    assert pet["properties"]["colour"]["enum"] == ["red", "blue"]
    assert schema(Place)["additionalProperties"] is False
    assert schema(dict[str, int])["additionalProperties"] == {"type": "integer"}


def test_any_whitespace_is_asked_of_the_compiler_and_the_schemas_own_word_goes_first():
    assert schema({"type": "null"}, any_whitespace=True)["x-guidance"]["whitespace_flexible"] is True
    own = {"x-guidance": {"whitespace_flexible": False, "lenient": True}}
    asked = schema(own, any_whitespace=True)["x-guidance"]
    assert (asked["whitespace_flexible"], asked["lenient"]) == (False, True)


def test_a_schema_may_be_given_as_its_text():
    assert schema('{"type": "null"}') == {"type": "null"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Grammar.json_schema("{"), "is not JSON"),
        (lambda: Grammar.json_schema({"const": object()}), "is not JSON"),
        (lambda: Grammar.json_schema(bytes), "no JSON schema can be made of"),
        (lambda: Grammar.json_schema(Tree), "it contains itself"),
        (lambda: Grammar.regex(b"x"), "has to be a text; got bytes"),
        (lambda: Grammar.lark(None), "has to be a text"),
        (lambda: Grammar.choice([]), "`options` has to be a list of texts"),
        (lambda: Grammar.choice("yes"), "`options` has to be a list of texts"),
        (lambda: Grammar.choice(["a", ""]), "none of them empty"),
        (lambda: Grammar.choice(["a", 1]), "has to be a text; got int"),
        (lambda: sent("[0-9]+"), "`grammar` has to be a Grammar; got the text '[0-9]+'"),
        (lambda: sent(12), "no JSON schema can be made of 12"),
    ],
)
def test_what_is_no_grammar_is_named(make, says):
    with pytest.raises(InvalidInput) as refused:
        make()
    assert says in refused.value.message


# Replies as values.


def value_of(kind, reply, **options):
    async def main():
        found.append(await Context().append("x").generate_as(kind, **options))

    found: list = []
    run_inferlet(main, replies=[reply])
    return found[0]


def test_a_reply_becomes_what_was_asked_for():
    text = '{"name": "Ann", "age": 31, "pets": [{"name": "Rex", "colour": "blue"}, {"name": "Kit"}]}'
    assert value_of(Person, text) == Person("Ann", 31, [Pet("Rex", Colour.BLUE), Pet("Kit")])
    assert value_of(Place, '{"city": "Bern"}') == {"city": "Bern"}
    assert value_of(tuple[int, str], '[1, "a"]') == (1, "a")
    assert value_of(Literal["a", "b"], '"b"') == "b"
    assert value_of(Model, '{"x": 4}').x == 4


def test_the_sampler_the_seed_and_the_limit_reach_the_plan():
    async def main():
        host = _transport.host
        start = host.generate.start
        host.generate.start = lambda ctx, plan: plans.append(plan) or start(ctx, plan)
        await Context().append("x").generate_as(int, Sampler.temperature(0.5), max_tokens=9, seed=4)

    plans: list = []
    run_inferlet(main, replies=["7"])
    assert (plans[0].sampler.temperature, plans[0].max_tokens, plans[0].seed) == (0.5, 9, 4)


def test_a_reply_that_was_cut_is_an_error_that_names_the_limit():
    with pytest.raises(InvalidInput, match="cut after 2 tokens and is not complete") as refused:
        value_of(list[int], "[1, 2]", max_tokens=2)
    assert refused.value.hint == "raise `max_tokens`"


# What a test scripts.


@pytest.mark.parametrize(
    ("grammar", "reply", "says"),
    [
        (Person, '{"name": "Ann"', "it is not JSON"),
        (Person, '{"name": "Ann", "age": 3}', "it has no 'pets'"),
        (Person, '{"name": "Ann", "age": "3", "pets": []}', "it['age'] should be of type integer"),
        (Person, '{"name": "A", "age": 3, "pets": [{"name": "B", "colour": "grey"}]}', "it['pets'][0]['colour']"),
        (Person, '{"name": "A", "age": 3, "pets": [], "x": 1}', "an unknown 'x'"),
        (Grammar.json(), "[]", "should be of type object"),
        (int, "true", "should be of type integer"),
        (Grammar.choice(["a", "b"]), "c", "none of the choices"),
        (Grammar.regex("[0-9]+"), "12a", "does not match the whole"),
    ],
)
def test_a_scripted_reply_that_the_engine_would_never_write_fails_the_test(grammar, reply, says):
    with pytest.raises(InvalidInput, match="the test's reply") as refused:
        sent(grammar, reply)
    assert says in refused.value.message


def test_what_the_fake_cannot_judge_passes():
    sent(Grammar.lark('start: "x"'), "anything")
    sent(Grammar.regex(r"\p{L}+"), "anything")  # Rust's syntax, not Python's
    sent({"patternProperties": {"^a": {}}, "additionalProperties": False}, '{"ab": 1}')
    sent({"items": True}, "[1]")


def test_a_reply_is_written_pass_by_pass_under_a_grammar():
    async def main():
        ctx = Context()
        ctx.append("?")
        matcher = ctx.matcher(Grammar.choice(["yes", "no"]))
        ids, step, states = [], [], []
        while True:
            out = await ctx.forward(step, Sampler.greedy(), matcher=matcher)
            if out.token is None:
                break
            ids.append(out.token)
            step = [out.token]
            assert matcher.advance(out.token) is matcher
            states.append((await matcher.look()).is_complete)
        branch = ctx.fork()
        other = matcher.rollback(2).fork(branch)
        fitting = [await other.num_fitting(ids[1:]), await other.num_fitting(ids), await matcher.num_fitting([])]
        await branch.forward([], Sampler.greedy(), matcher=other, top_k=2, top_allowed=True)
        matcher.release()
        matcher.release()
        return [ctx.model.tokenizer.decode(ids), states, fitting, repr(matcher)]

    result = run_inferlet(main, replies=["yes"])
    assert result.value == ["yes", [False, False, True], [2, 0, 0], "Matcher(released)"]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda ctx, _: ctx.matcher(None), "a matcher needs a grammar"),
        (lambda ctx, _: ctx.matcher("yes"), "`grammar` has to be a Grammar; got the text 'yes'"),
        (lambda _, held: held.advance("a"), "what a matcher takes has to be a list of token ids; got 'a'"),
        (lambda _, held: held.advance([-1]), "what a matcher takes has to be token ids, integers from 0; got -1"),
        (lambda _, held: held.rollback("1"), "count has to be an integer from 0; got '1'"),
        (lambda _, held: held.rollback(1), "cannot roll 1 tokens back: the matcher has taken 0"),
    ],
)
def test_a_matcher_refuses_what_makes_no_sense(use, message):
    async def main():
        ctx = Context()
        use(ctx, ctx.matcher(Grammar.regex("a+")))

    with pytest.raises(InvalidInput) as caught:
        run_inferlet(main, replies=["aa"])
    assert caught.value.message == message
