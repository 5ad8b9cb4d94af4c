"""chat with pie-tiny."""

import pytest

pytestmark = pytest.mark.model("pie-tiny")


def test_it_streams_the_answer_that_it_returns(run, program):
    result = run(program, prompt="What is the capital of France?")
    assert result.value == result.text != ""


def test_it_goes_on_talking_until_an_empty_message(run, program):
    result = run(program, prompt="My name is Ann.", talk=True, inbox=["What is my name?", ""])
    assert result.text.endswith(result.value)
    assert len(result.text) > len(result.value) > 0


async def test_its_client_can_wait_for_the_answers(start, program):
    async with start(program, prompt="My name is Ann.", talk=True) as process:
        assert await anext(process.messages())
        await process.send("")
        assert (await process.result()).value


def test_without_temperature_a_question_has_one_answer(run, program):
    assert run(program, prompt="Hello!").value == run(program, prompt="Hello!").value
