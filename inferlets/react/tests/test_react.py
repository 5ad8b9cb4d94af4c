"""react on a real daemon with pie-tiny, and its tools by themselves."""

from __future__ import annotations

import re

import pytest

from pie_client import Event

STEP = re.compile(r"Action: (\w+)\[(.*)\]\nObservation: (.*)\n")


async def run(client, program, question):
    process = await client.launch_process(program, input={"question": question})
    events = [pair async for pair in process]
    return "".join(value for event, value in events if event is Event.Message), events[-1]


@pytest.mark.parametrize(
    ("question", "wanted"), [("How much does the lamp cost?", "lookup"), ("What is 12 + 30?", "calculator")]
)
async def test_it_acts_observes_and_answers(client, program, question, wanted):
    trace, (event, answer) = await run(client, program, question)
    assert event is Event.Return, answer
    steps = STEP.findall(trace)
    assert [tool for tool, _, _ in steps] == [wanted] * len(steps) != []
    assert trace.endswith(f"Final Answer: {answer}")


async def test_observations_are_the_tools_own(client, program):
    trace, _ = await run(client, program, "What is 12 + 30?")
    for _, expression, observation in STEP.findall(trace):
        left, sign, right = expression.split()
        value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]
        assert observation == str(value)
