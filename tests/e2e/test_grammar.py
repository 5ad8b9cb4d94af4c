"""Replies under a grammar, in the real sandbox on pie-tiny."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.e2e.test_programs import error_of, program, value_of
from tests.pages import checked_by

PROGRAMS = [block.text for block in checked_by(__file__)]
PERSON = """
    import asyncio, dataclasses, enum, json
    from typing import Literal
    from inferlet import Context, Grammar, InvalidInput, PieError, Sampler, Unsupported

    class Colour(enum.Enum):
        RED = "red"
        BLUE = "blue"

    @dataclasses.dataclass
    class Pet:
        name: str
        colour: Colour

    @dataclasses.dataclass
    class Person:
        name: str
        age: int
        pets: list[Pet]

    SCHEMA = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 1, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    }
    WARM = Sampler.temperature(1.0)

    async def asked() -> Context:
        ctx = Context(seed=1)
        ctx.user("Who is it?")
        await ctx.flush()
        return ctx
"""


def with_person(source):
    return program(PERSON + source)


async def test_every_reply_at_temperature_1_satisfies_the_schema(client):
    bundle = with_person("""
    async def main(n: int) -> list[str]:
        ctx = await asked()
        return await asyncio.gather(
            *(ctx.fork().generate(WARM, grammar=SCHEMA, seed=seed, max_tokens=200) for seed in range(n))
        )
    """)
    replies = await value_of(client, bundle, n=48)
    for reply in replies:
        person = json.loads(reply)
        assert sorted(person) == ["age", "name", "tags"], reply
        assert 1 <= len(person["name"]) <= 20
        assert 0 <= person["age"] <= 150
        assert 1 <= len(person["tags"]) <= 3
        assert set(person["tags"]) <= {"a", "b", "c"}
        assert reply == json.dumps(person, ensure_ascii=False)
    assert len(set(replies)) > 40


async def test_replies_as_values_of_a_class(client):
    bundle = with_person("""
    @dataclasses.dataclass
    class Short:
        kind: Literal["cat", "dog"]
        colour: Colour
        n: int
        is_old: bool

    async def main() -> list:
        found = []
        for seed in range(6):
            short = await (await asked()).generate_as(Short, WARM, seed=seed, max_tokens=60)
            assert isinstance(short.colour, Colour)
            found.append(short)
        return found
    """)
    for short in await value_of(client, bundle):
        assert short["kind"] in ("cat", "dog")
        assert short["colour"] in ("red", "blue")
        assert (type(short["n"]), type(short["is_old"])) == (int, bool)


async def test_every_kind_of_grammar(client):
    bundle = with_person(r"""
    async def main() -> list[str]:
        ctx = await asked()
        grammars = [
            Grammar.regex(r"\d{4}-\d{2}-\d{2}"),
            Grammar.choice(["yes", "no", "perhaps"]),
            Grammar.lark('start: NAME ("," NAME)~2\nNAME: /[A-Z][a-z]{1,5}/'),
            Grammar.ebnf('root ::= [0-9] ("+" [0-9])'),
            Grammar.json(),
            list[bool],
        ]
        return await asyncio.gather(*(ctx.fork().generate(WARM, grammar=one, max_tokens=40) for one in grammars))
    """)
    date, choice, names, total, anything, flags = await value_of(client, bundle)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", date)
    assert choice in ("yes", "no", "perhaps")
    assert re.fullmatch(r"[A-Z][a-z]{1,5}(,[A-Z][a-z]{1,5}){2}", names)
    assert re.fullmatch(r"\d\+\d", total)
    assert anything.startswith("{")
    assert flags.startswith("[")


async def test_a_stream_is_rewound_forked_and_injected_within_its_grammar(client):
    bundle = with_person("""
    async def main() -> dict:
        # More tokens than can run ahead: the reply goes on, however late the program looks.
        tags = SCHEMA["properties"]["tags"] | {"minItems": 80, "maxItems": 81}
        schema = SCHEMA | {"properties": SCHEMA["properties"] | {"tags": tags}}
        seen = {}
        stream = (ctx := await asked()).generate(WARM, grammar=schema, max_tokens=600, chunk_ms=0)
        async for chunk in stream:
            if len(stream.ids) >= 6 and "rewound" not in seen:
                stream.rewind(4)
                seen["rewound"] = ctx.last_text
                seen["forked"] = await ctx.fork().generate(max_tokens=4)
            elif "age" in ctx.last_text and "injected" not in seen:
                stream.rewind(len(stream.ids))
                stream.inject('{"name": "Zoe", "age": 4')
                seen["injected"] = True
        seen["reply"], seen["finish"] = ctx.last_text, stream.finish
        return seen
    """)
    seen = await value_of(client, bundle)
    person = json.loads(seen["reply"])
    assert seen["finish"] == "stop"
    assert person["name"] == "Zoe"
    assert str(person["age"]).startswith("4")
    assert seen["reply"].startswith('{"name": "Zoe", "age": 4')


async def test_forced_tokens_come_as_ids_and_text_like_any_others(client):
    bundle = with_person("""
    async def main() -> list:
        ctx = await asked()
        before = ctx.length
        stream = ctx.generate(grammar=Grammar.choice(["all of this is given"]), logprobs=True)
        chunks = [chunk async for chunk in stream]
        text = ctx.model.tokenizer.decode(stream.ids)
        return [ctx.last_text, text, ctx.length - before, len(stream.ids), stream.logprobs, chunks[-1].usage]
    """)
    last, text, more, num_ids, logprobs, usage = await value_of(client, bundle)
    assert last == text == "all of this is given"
    assert more == num_ids == len(logprobs) == usage["completion_tokens"]
    assert set(logprobs) == {0.0}


async def test_a_reply_that_is_cut_says_length_and_is_no_value(client):
    bundle = with_person("""
    async def main() -> list:
        stream = (await asked()).generate(grammar=Person, max_tokens=5)
        await stream
        try:
            await (await asked()).generate_as(Person, max_tokens=5)
        except InvalidInput as error:
            return [stream.finish, error.message]
    """)
    finish, message = await value_of(client, bundle)
    assert finish == "length"
    assert "cut after 5 tokens" in message


async def test_what_cannot_be_followed_is_an_error_of_its_kind_and_the_context_goes_on(client):
    bundle = with_person(r"""
    async def main() -> list:
        ctx, seen = await asked(), []
        grammars = [
            {"type": "array", "uniqueItems": True},
            Grammar.regex("(a"),
            Grammar.lark('start: "ab" B\nB: /[a-z]/ & /[0-9]/'),
        ]
        for grammar in grammars:
            length = ctx.length
            try:
                await ctx.generate(grammar=grammar)
            except PieError as error:
                seen.append([type(error).__name__, error.message])
            ctx.truncate(length)
        stream = ctx.generate(grammar=Grammar.regex("[0-9]{200}"), max_tokens=200)
        try:
            async for chunk in stream:
                stream.inject("x")
        except PieError as error:
            seen.append([type(error).__name__, error.message])
        seen.append(len(await ctx.generate(max_tokens=4, ignore_eos=True)) > 0)
        return seen
    """)
    unique, regex, dead, injected, goes_on = await value_of(client, bundle)
    assert unique[0] == "Unsupported"
    assert "`$.uniqueItems`" in unique[1]
    assert regex[0] == "InvalidInput"
    assert "unclosed group" in regex[1]
    assert "dead end after" in dead[1]
    assert "does not fit the grammar" in injected[1]
    assert goes_on


async def test_an_uncaught_refusal_ends_the_program_with_its_code(client):
    bundle = with_person("""
    async def main() -> str:
        return await (await asked()).generate(grammar={"not": {"type": "string"}})
    """)
    error = await error_of(client, bundle)
    assert "`$.not`" in str(error)


async def test_many_programs_each_under_its_own_grammar(client):
    bundle = with_person(r"""
    async def main(n: int) -> str:
        ctx = await asked()
        grammar = None if n % 4 == 0 else Grammar.regex(rf"{n}:[a-f]{{{10 + n}}}")
        return await ctx.generate(WARM, grammar=grammar, seed=n, max_tokens=100)
    """)
    replies = await asyncio.gather(*(value_of(client, bundle, n=n) for n in range(24)))
    for n, reply in enumerate(replies):
        assert n % 4 == 0 or re.fullmatch(rf"{n}:[a-f]{{{10 + n}}}", reply), (n, reply)


@pytest.mark.parametrize("source", PROGRAMS, ids=lambda source: source[:40].replace("\n", " "))
async def test_every_program_on_the_page_runs_in_the_sandbox(client, source):
    assert await value_of(client, program(source))


def test_there_are_programs_on_the_page():
    assert len(PROGRAMS) >= 3


async def test_a_reply_under_a_grammar_pass_by_pass_with_branches(client):
    source = """
    from inferlet import Context, Grammar, InvalidInput, Sampler


    async def main() -> dict:
        ctx = Context(seed=3)
        ctx.user("Pick one.")
        matcher = ctx.matcher(Grammar.regex("(left|right): [0-9]{3}"))
        ids, step = [], []
        while True:
            state = await matcher.look()
            if state.forced:
                matcher.advance(state.forced)
                ids += state.forced
                step += state.forced
            out = await ctx.forward(step, Sampler.temperature(1.0), matcher=matcher)
            if out.token is None or out.token in ctx.model.info.stop_tokens:
                break
            ids.append(out.token)
            matcher.advance(out.token)
            step = [out.token]
        again = matcher.fork(ctx.fork()).rollback(len(ids))
        wrong = ctx.model.tokenizer.encode("up")
        fits = [await again.num_fitting(ids) == len(ids), await again.num_fitting(wrong) == len(wrong)]
        again.advance(wrong)
        try:
            await again.look()
        except InvalidInput as error:
            refused = error.message
        return {"text": ctx.model.tokenizer.decode(ids), "fits": fits, "refused": refused}
    """
    value = await value_of(client, program(source))
    side, _, number = value["text"].partition(": ")
    assert side in ("left", "right")
    assert len(number) == 3
    assert number.isdigit()
    assert value["fits"] == [True, False]
    assert "does not fit the grammar" in value["refused"]
