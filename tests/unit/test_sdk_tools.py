"""Tools: schemas from functions, calls from replies."""

from __future__ import annotations

from typing import Literal

import pytest

from inferlet import Context, InvalidInput, parse_calls, tool
from inferlet.testing import run_inferlet
from inferlet.tools import schemas


@tool
def weather(city: str, unit: Literal["C", "F"] = "C") -> dict:
    """Get the weather in a city.

    Args:
        city: Its name.
    """
    return {"city": city, "degrees": 21, "unit": unit}


@tool(name="wait_for", description="Wait")
async def patience(seconds: float) -> str:
    return f"waited {seconds}"


def test_the_schema_is_what_chat_templates_take():
    assert weather.schema == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Get the weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Its name."},
                    "unit": {"enum": ["C", "F"], "type": "string", "default": "C"},
                },
                "required": ["city"],
            },
        },
    }
    assert patience.schema["function"]["name"] == "wait_for"


def test_a_tool_is_still_its_function():
    assert weather("Paris") == {"city": "Paris", "degrees": 21, "unit": "C"}
    assert weather.__doc__.startswith("Get the weather")


def test_calls_are_found_in_a_reply():
    text = 'Well. <tool_call>{"name": "a", "arguments": {"x": 1}}</tool_call> and <tool_call>\n{"name": "b"}'
    assert [(call.name, call.arguments) for call in parse_calls(text)] == [("a", {"x": 1}), ("b", {})]
    assert parse_calls("no call") == []


def test_arguments_may_be_json_in_a_string():
    assert parse_calls('<tool_call>{"name": "a", "arguments": "{\\"x\\": 1}"}</tool_call>')[0].arguments == {"x": 1}


@pytest.mark.parametrize(
    "inside", ["", "{", '{"arguments": {}}', "[]", '{"name": 3}', '{"name": "a", "arguments": []}']
)
def test_what_is_no_call_is_named_when_it_runs(inside):
    async def main():
        good, bad = parse_calls(f'<tool_call>{{"name": "wait_for"}}</tool_call> <tool_call>{inside}</tool_call>')
        assert good.name == "wait_for"
        await bad.run([weather])

    with pytest.raises(InvalidInput) as caught:
        run_inferlet(main)
    assert caught.value.message == f"not a tool call: {inside or 'nothing'}"
    assert '{"name": "…"' in caught.value.hint


def test_calls_run_sync_and_async_tools():
    async def main():
        text = (
            '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
            '<tool_call>{"name": "wait_for", "arguments": {"seconds": 1}}</tool_call>'
        )
        return [await call.run([weather, patience]) for call in parse_calls(text)]

    assert run_inferlet(main).value == ['{"city": "Rome", "degrees": 21, "unit": "C"}', "waited 1.0"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('{"name": "wether"}', "there is no tool `wether`"),
        ('{"name": "weather"}', "`weather` needs the parameter `city` (a string)"),
        ('{"name": "weather", "arguments": {"city": 3}}', "`city` has to be a string; got 3"),
    ],
)
def test_wrong_calls_have_messages_for_the_model(call, message):
    async def main():
        await parse_calls(f"<tool_call>{call}</tool_call>")[0].run([weather])

    with pytest.raises(InvalidInput) as caught:
        run_inferlet(main)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("{", 'error: not a tool call: {; write {"name": "…", "arguments": {…}} between the tags'),
        ('{"name": "wether"}', "error: there is no tool `wether`; did you mean `weather`?"),
        ('{"name": "search"}', "error: there is no tool `search`; there is: weather, wait_for"),
        ('{"name": "weather"}', "error: `weather` needs the parameter `city` (a string)"),
        ('{"name": "wait_for", "arguments": {"seconds": 2}}', "waited 2.0"),
    ],
)
def test_a_result_is_what_the_model_is_told(call, text):
    async def main():
        return await parse_calls(f"<tool_call>{call}</tool_call>")[0].result([weather, patience])

    assert run_inferlet(main).value == text


def test_a_fault_of_a_tool_comes_through():
    @tool
    def broken() -> int:
        return {}["key"]

    async def main():
        await parse_calls('<tool_call>{"name": "broken"}</tool_call>')[0].result([broken])

    with pytest.raises(KeyError):
        run_inferlet(main)


def test_the_model_reads_characters_and_not_escapes():
    async def main():
        return await parse_calls('<tool_call>{"name": "weather", "arguments": {"city": "Köln"}}</tool_call>')[0].run(
            [weather]
        )

    assert run_inferlet(main).value.startswith('{"city": "Köln"')


def test_a_plain_function_is_refused_with_the_way_out():
    with pytest.raises(InvalidInput) as caught:
        schemas([print])
    assert caught.value.hint == "write `@tool` above its `def`"


def test_an_agent_loop():
    async def main(question: str) -> str:
        ctx = Context(tools=[weather])
        ctx.user(question)
        while calls := parse_calls(await ctx.generate()):
            for call in calls:
                ctx.tool(await call.result([weather]))
        return ctx.last_text

    call = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
    result = run_inferlet(main, {"question": "Hot?"}, replies=[call, "21 degrees."])
    assert result.value == "21 degrees."
    assert '<|tool|>{"city": "Rome"' in result.prompts[1]
