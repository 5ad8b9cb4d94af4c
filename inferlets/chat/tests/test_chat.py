"""chat with pie-tiny."""

import pytest

pytestmark = pytest.mark.model("pie-tiny")


def test_it_streams_the_answer_that_it_returns(run, program):
    result = run(program, prompt="What is the capital of France?")
    assert result.value == result.text != ""


def test_without_a_question_it_answers_each_message(run, program):
    first, second = "My name is Ann.", "What is my name?"
    talked = run(program, inbox=[first, second, None])
    assert talked.value is None
    assert talked.text.count("\n") >= 2
    assert talked.text.startswith(run(program, prompt=first).text + "\n")


async def test_its_client_can_wait_for_the_answers(start, program):
    async with start(program) as process:
        await process.send("My name is Ann.")
        async for text in process.messages():
            if text == "\n":
                await process.send(None)
        assert (await process.result()).text.endswith("\n")


def test_without_temperature_a_question_has_one_answer(run, program):
    assert run(program, prompt="Hello!").value == run(program, prompt="Hello!").value
