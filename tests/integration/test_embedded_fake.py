"""The fake model as tests of programs script it: what it says, to whom, and how it fails."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from pie_engine.config import HostSection, ModelSection
from pie_engine.driver.fake_script import FakeScript, Fault, Reply
from pie_engine.embedded import Embedded
from pie_engine.errors import InvalidConfig, PieError
from pie_engine.protocol.program import Bundle, Manifest

FAKE = ModelSection(driver="fake", name="fake", num_pages=64, offload_memory_mb=1)


@pytest.fixture(scope="module")
def engine() -> Iterator[Embedded]:
    with Embedded(HostSection(warm_instances=1)) as running:
        yield running


def run(engine: Embedded, source: str, *replies: Reply | str, **script: object) -> object:
    """The value of a program whose `main` has this body."""
    said = tuple(Reply(reply, once=True) if isinstance(reply, str) else reply for reply in replies)
    engine.load(FAKE, FakeScript(replies=said, strict=True, **script))  # type: ignore[arg-type]
    lines = "import asyncio\nfrom inferlet import *\nfrom inferlet import session\nasync def main():\n"
    body = textwrap.indent(textwrap.dedent(source), "    ")
    process = engine.launch(Bundle(Manifest(name="p"), {"main.py": lines + body}))
    process.wait(30)
    return process.value


def prompts(engine: Embedded) -> list[str]:
    return engine.driver("fake").replies.prompts  # type: ignore[attr-defined]


TALK = """
ctx = Context()
said = []
for question in ("Who?", "Where?"):
    ctx.user(question)
    said.append(await ctx.generate())
return said
"""


def test_each_question_of_a_talk_gets_the_next_reply(engine):
    assert run(engine, TALK, "Ann.", "At home.") == ["Ann.", "At home."]
    first, second = prompts(engine)
    assert "Who?" in first
    assert "Ann." not in first
    assert second.startswith(first)
    assert "Ann." in second


def test_forks_that_ask_the_same_get_a_reply_each(engine):
    source = """
    ctx = Context()
    ctx.user("Pick a word.")
    await ctx.flush()
    return await asyncio.gather(*(ctx.fork().generate() for _ in range(3)))
    """
    assert run(engine, source, "help me", "hello there", "help me not") == ["help me", "hello there", "help me not"]


def test_the_same_question_asked_anew_gets_the_next_reply(engine):
    source = """
    said = []
    for _ in range(3):
        with Context() as ctx:
            ctx.user("Pick a word.")
            said.append(await ctx.generate())
    return said
    """
    assert run(engine, source, "one", "two", "one") == ["one", "two", "one"]


def test_a_reply_that_was_cut_short_goes_on(engine):
    source = """
    ctx = Context()
    ctx.user("Count.")
    begun = await ctx.generate(max_tokens=3)
    return [begun, begun + await ctx.generate()]
    """
    begun, whole = run(engine, source, "one, two, three, four")
    assert whole == "one, two, three, four"
    assert 0 < len(begun) < len(whole)


def test_after_a_stop_the_next_reply_begins(engine):
    source = """
    ctx = Context()
    ctx.user("Think.")
    first = await ctx.generate(stop="Observation:")
    ctx.append("Observation: 4\\n")
    return [first, await ctx.generate()]
    """
    assert run(engine, source, "2 + 2\nObservation: 7 I think", "It is 4.") == ["2 + 2\n", "It is 4."]


def test_a_match_answers_wherever_it_is_found(engine):
    source = """
    async def ask(question):
        ctx = Context()
        ctx.user(question)
        return await ctx.generate()
    return await asyncio.gather(*map(ask, ("the capital?", "the river?", "the capital?")))
    """
    answers = run(engine, source, Reply("Paris", match="capital"), Reply("The Seine", match="river"))
    assert answers == ["Paris", "The Seine", "Paris"]


def test_without_a_reply_the_program_is_told(engine):
    with pytest.raises(PieError, match="the fake model has no reply for this prompt: the 1 that it has are said"):
        run(engine, TALK, "Ann.")


LOOP = """
ctx = Context()
ctx.append("Once")
tokens, text = [], ""
for _ in range(30):
    out = await ctx.forward(tokens, Sampler.greedy())
    if out.token in ctx.model.info.stop_tokens:
        return text
    tokens = [out.token]
    text += ctx.model.tokenizer.decode(tokens)
"""


def test_a_loop_of_passes_gets_a_reply_token_by_token(engine):
    assert run(engine, LOOP, " upon a time") == " upon a time"


def test_a_table_is_what_the_next_token_may_be(engine):
    source = """
    ctx = Context()
    ctx.user("Is it?")
    out = await ctx.forward([], Sampler.greedy(), top_k=2)
    decode = ctx.model.tokenizer.decode
    return [[decode([token]), round(2.718281828 ** logprob, 3)] for token, logprob in out.top]
    """
    table = Reply(tokens=({"yes": 3, "no": 1},), once=True)
    assert run(engine, source, table) == [["y", 0.75], ["n", 0.25]]


def test_draws_follow_the_table_and_the_reply_goes_on(engine):
    source = """
    async def ask(seed):
        ctx = Context(seed=seed)
        ctx.user("Is it?")
        return await ctx.generate(Sampler.temperature(1.0))
    return await asyncio.gather(*map(ask, range(60)))
    """
    table = Reply(tokens=("I say ", {"yes": 0.7, "no": 0.3}, " now"))
    said = run(engine, source, table)
    assert set(said) == {"I say yes now", "I say no now"}
    assert 28 < said.count("I say yes now") < 56


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"n": 1.0, "no": 1.0}, "`n` and `no` cannot be told apart"),
        ({"no": 0.0}, "the share of `no` is 0"),
    ],
)
def test_a_table_that_means_nothing_is_refused(engine, table, says):
    with pytest.raises(InvalidConfig, match=says):
        run(engine, LOOP, Reply(tokens=(table,)))


PERSON = """
ctx = Context()
ctx.user("Who?")
schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}
return await ctx.generate(grammar=schema)
"""


@pytest.mark.parametrize("text", ['{"name": "Ann", "age": 31}', '{"name": "Ann ü", "age": -3}'])
def test_a_reply_is_said_in_the_tokens_that_a_grammar_allows(engine, text):
    assert run(engine, PERSON, text) == text


@pytest.mark.parametrize(("text", "says"), [('{"name": 7}', "`7}`"), ('{"name": "Ann"', "cannot end")])
def test_a_reply_that_the_grammar_does_not_let_through_is_refused(engine, text, says):
    with pytest.raises(PieError, match="does not fit the grammar") as caught:
        run(engine, PERSON, text)
    assert says in str(caught.value)


@pytest.mark.parametrize("speculate", ["", ', speculate="lookup"'])
def test_guesses_take_no_reply_away(engine, speculate):
    source = f"""
    ctx = Context()
    ctx.user("one two three four five six, one two three four six five")
    first = await ctx.generate(max_tokens=60{speculate})
    ctx.user("And?")
    return [first, await ctx.generate(max_tokens=60{speculate})]
    """
    said = ["one two three four seven one two three four five six", "no more"]
    assert run(engine, source, *said) == said


def test_a_row_can_fail_with_any_error(engine):
    source = """
    ctx = Context()
    ctx.user("Hi")
    try:
        return await ctx.generate()
    except OutOfPages as error:
        return error.message
    """
    assert run(engine, source, "never", faults=(Fault(2, 0, "no room", "out_of_pages"),)) == "no room"


def test_a_reply_goes_on_in_a_window(engine):
    source = """
    ctx = Context()
    ctx.append("Once upon a time there were many words in a row, one after the other")
    return await ctx.generate(window=8, sinks=2)
    """
    assert run(engine, source, " and they went on and on and on") == " and they went on and on and on"
