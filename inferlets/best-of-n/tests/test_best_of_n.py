"""best-of-n on a real daemon with pie-tiny."""

from __future__ import annotations

from pie_client import Event


async def run(client, program, **arguments):
    process = await client.launch_process(program, input=arguments)
    event, value = [pair async for pair in process][-1]
    assert event is Event.Return, value
    return value


async def test_it_returns_the_candidate_with_the_best_score(client, program):
    result = await run(client, program, prompt="Tell me a story about a fox.", n=4, max_tokens=32)
    scores = [candidate["score"] for candidate in result["candidates"]]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert all(score <= 0 for score in scores)
    assert result["text"] == result["candidates"][0]["text"] != ""


async def test_candidates_differ(client, program):
    result = await run(client, program, prompt="Tell me a story about a fox.", n=4, max_tokens=32, temperature=1.5)
    assert len({candidate["text"] for candidate in result["candidates"]}) > 1


async def test_without_temperature_all_are_the_same(client, program):
    result = await run(client, program, prompt="What is the capital of France?", n=3, max_tokens=16, temperature=0)
    assert len({candidate["text"] for candidate in result["candidates"]}) == 1
