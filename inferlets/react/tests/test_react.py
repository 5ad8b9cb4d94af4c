"""react on a real daemon with pie-tiny."""

from __future__ import annotations

from pathlib import Path

from pie_client import Event

PROGRAM = Path(__file__).parents[1]


async def run(client, question):
    process = await client.launch_process(PROGRAM, input={"question": question})
    events = [pair async for pair in process]
    return "".join(value for event, value in events if event is Event.Message), events[-1]


async def test_it_looks_a_price_up(client):
    trace, (event, answer) = await run(client, "How much does the lamp cost?")
    assert event is Event.Return, answer
    assert "Action: lookup[lamp]" in trace
    assert "Observation: The lamp costs 35 dollars." in trace
    assert "35" in answer


async def test_it_calculates(client):
    trace, (event, answer) = await run(client, "What is 12 + 30?")
    assert event is Event.Return, answer
    assert "Observation: 42" in trace
    assert "42" in answer
