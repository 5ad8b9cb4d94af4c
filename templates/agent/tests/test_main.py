"""Unit tests with a scripted model: no engine is needed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest

from inferlet import PieError
from inferlet.testing import run_inferlet
from main import main

CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "12 * 30"}}</tool_call>'


def test_it_calls_a_tool_and_answers():
    result = run_inferlet(main, {"question": "What is 12 * 30?"}, replies=[CALL, "12 * 30 = 360"])
    assert result.value == "12 * 30 = 360"
    assert result.messages == [{"tool": "360"}]
    assert "360" in result.prompts[1]


def test_a_wrong_call_is_shown_to_the_model():
    wrong = CALL.replace("calculator", "calc")
    result = run_inferlet(main, {"question": "?"}, replies=[wrong, "I cannot."])
    assert "there is no tool `calc`" in result.prompts[1]


def test_it_gives_up_after_too_many_steps():
    with pytest.raises(PieError, match="no answer within 2 steps"):
        run_inferlet(main, {"question": "?", "max_steps": 2}, replies=[CALL, CALL])
