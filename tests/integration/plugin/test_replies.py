"""What tests say for the model and for clients, and what one test leaves to the next."""

from __future__ import annotations

from tests.integration.plugin.inner import check

TALK = """
from inferlet import session

async def main() -> list:
    session.send("name?")
    said = [await session.receive()]
    async for message in session:
        said.append(message)
    return said
"""


def test_clients_talk_to_programs(project):
    project.makepyfile(main=TALK)
    tests = """
from pie_testing import PieError

def test_inbox(run):
    assert run(inbox=["Ann", "b", None]).value == ["Ann", "b"]

def test_answer(run):
    source = '''
        from inferlet import session
        async def main() -> list:
            said = []
            for number in range(3):
                session.send(number)
                said.append(await session.receive())
            return said
    '''
    assert run(source, answer=lambda number: {"to": number}).value == [{"to": 0}, {"to": 1}, {"to": 2}]

def test_nobody_answers(run):
    with pytest.raises(PieError, match="waits for a message, and nobody sends one") as caught:
        run()
    assert caught.value.result.messages == ["name?"]

async def test_while_it_runs(start):
    async with start() as process:
        async for message in process.messages():
            assert message == "name?"
            break
        await process.send("Ann")
        await process.send(None)
        assert (await process.result()).value == ["Ann"]

async def test_left_running(start):
    async with start() as process:
        assert (await process.recv()).kind == "started"

async def test_ended(start):
    process = start()
    await process.terminate()
    with pytest.raises(PieError, match="terminated"):
        await process.result()
"""
    check(project, tests, passed=6)


def test_the_fake_model_fails_and_dawdles_as_told(project):
    tests = """
import time
from pie_testing import PieError

@pytest.mark.parametrize("code", ["core_lost", "out_of_pages", "internal"])
def test_failures(run, fake, code):
    fake.replies("one two three", "four")
    fake.fail(code, at_pass=2)
    with pytest.raises(PieError) as caught:
        run(prompt="Hi")
    assert caught.value.result.error.code in (code, "exception")
    assert code == "core_lost" or "scripted failure" in str(caught.value)

def test_slow(run, fake):
    fake.replies("one two three")
    fake.slow(pass_ms=30)
    began = time.monotonic()
    result = run(prompt="Hi")
    assert time.monotonic() - began > 0.03 * result.passes

def test_few_pages(run, fake):
    fake.replies("one " * 100)
    fake.limit(pages=2)
    result = run(prompt="Hi", max_tokens=200)
    assert result.pages == 2
    assert 0 < result.text.count("one") < 32, "what there was room for"
    with pytest.raises(PieError, match="has 2 in all"):
        run(prompt="Hi " * 100)

def test_babble(run, fake):
    fake.babble()
    assert len(run(prompt="Hi", max_tokens=9).text) > 9

def test_nothing_to_say(run):
    with pytest.raises(PieError, match="the fake model has no reply for this prompt: it has none"):
        run(prompt="Hi")

def test_more_later(run, fake):
    fake.replies("one")
    assert run(prompt="Hi").value == "one"
    fake.replies("two")
    assert run(prompt="Hi").value == "two"

def test_by_match(run, fake):
    fake.reply(["It is ", {"so": 3, "not": 1}, "."], match="[Ii]s it")
    assert run(prompt="Is it?").value == "It is so."
    with pytest.raises(PieError, match="no regular expression"):
        fake.reply("x", match="(")
    with pytest.raises(PieError, match="a reply is a text"):
        fake.replies(7)
"""
    check(project, tests, passed=9)


def test_what_one_test_saves_the_next_one_does_not_find(project):
    project.makepyfile(
        main="""
from inferlet import Context
async def main(save: bool) -> list:
    if save:
        await Context().append("x").save("notes")
    return [each.name for each in Context.list()]
"""
    )
    tests = """
def test_first(run):
    assert run(save=True).value == ["notes"]
    assert run(save=False).value == ["notes"]

def test_second(run):
    assert run(save=False).value == []
"""
    check(project, tests, passed=2)


def test_tool_calls_are_what_the_model_asks_for(project):
    project.makepyfile(
        main="""
from inferlet import Context, parse_calls, tool

@tool
def add(a: int, b: int) -> int:
    return a + b

async def main() -> str:
    ctx = Context(tools=[add])
    ctx.user("?")
    for call in parse_calls(await ctx.generate()):
        ctx.tool(await call.result([add]))
    return await ctx.generate()
"""
    )
    tests = """
from pie_testing import ToolCall

def test_it(run, fake):
    fake.replies('<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>', "It is 3.")
    result = run()
    assert result.tool_calls == [ToolCall("add", {"a": 1, "b": 2})]
    assert "3" in result.prompts[1]
"""
    check(project, tests)


def test_what_models_draw_is_the_same_in_every_run(project):
    project.makepyfile(
        main="""
from inferlet import Context, Sampler
async def main() -> str:
    ctx = Context()
    ctx.user("Throw.")
    return await ctx.generate(Sampler.temperature(1.0), max_tokens=20)
"""
    )
    tests = """
def test_it(run, fake, golden):
    fake.babble()
    first, second = run().value, run().value
    assert first != second
    golden(first + second)
"""
    check(project, tests, "--pie-update")
    check(project, tests)
