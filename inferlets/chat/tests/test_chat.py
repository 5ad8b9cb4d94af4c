"""chat on a real daemon with pie-tiny."""

from __future__ import annotations

from pie_client import Event


async def test_it_streams_the_answer_that_it_returns(client, program):
    process = await client.launch_process(program, input={"prompt": "What is the capital of France?"})
    events = [pair async for pair in process]
    text = "".join(value for event, value in events if event is Event.Message)
    assert events[-1] == (Event.Return, text)
    assert text


async def test_it_goes_on_talking_until_an_empty_message(client, program):
    process = await client.launch_process(program, input={"prompt": "My name is Ann.", "talk": True})
    await process.send("What is my name?")
    await process.send("")
    events = [pair async for pair in process]
    text = "".join(value for event, value in events if event is Event.Message)
    event, last = events[-1]
    assert event is Event.Return
    assert text.endswith(last)
    assert len(text) > len(last) > 0


async def test_without_temperature_a_question_has_one_answer(client, program):
    answers = []
    for _ in range(2):
        process = await client.launch_process(program, input={"prompt": "Hello!"})
        answers.append([pair async for pair in process][-1])
    assert answers[0] == answers[1]
