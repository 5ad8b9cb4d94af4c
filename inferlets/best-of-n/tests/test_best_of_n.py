"""best-of-n with pie-tiny."""

import pytest

pytestmark = pytest.mark.model("pie-tiny")


def test_it_returns_the_candidate_with_the_best_score(run, program):
    result = run(program, prompt="Tell me a story about a fox.", n=4, max_tokens=32).value
    scores = [candidate["score"] for candidate in result["candidates"]]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert all(score <= 0 for score in scores)
    assert result["text"] == result["candidates"][0]["text"] != ""


def test_candidates_differ(run, program):
    result = run(program, prompt="Tell me a story about a fox.", n=4, max_tokens=32, temperature=1.5).value
    assert len({candidate["text"] for candidate in result["candidates"]}) > 1


def test_without_temperature_all_are_the_same(run, program):
    result = run(program, prompt="What is the capital of France?", n=3, max_tokens=16, temperature=0).value
    assert len({candidate["text"] for candidate in result["candidates"]}) == 1


@pytest.mark.budget(passes=40)
def test_candidates_are_written_side_by_side(run, program):
    run(program, prompt="Tell me a story about a fox.", n=4, max_tokens=32)
