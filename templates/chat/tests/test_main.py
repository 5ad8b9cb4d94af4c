"""Unit tests with a scripted model: no engine is needed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from inferlet.testing import run_inferlet
from main import main


def test_it_streams_the_answer_that_it_returns():
    result = run_inferlet(main, {"prompt": "Hi"}, replies=["Hello there!"])
    assert "".join(result.messages) == result.value == "Hello there!"


def test_the_model_sees_the_question():
    result = run_inferlet(main, {"prompt": "What is Pie?"}, replies=["A server."])
    assert "What is Pie?" in result.prompts[0]
