"""The model is scripted: `pie test` needs neither a GPU nor a network."""

import pytest
from pie_testing import PieError, ToolCall

CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "12 * 30"}}</tool_call>'


def test_it_calls_a_tool_and_answers(run, fake):
    fake.replies(CALL, "12 * 30 = 360")
    result = run(question="What is 12 * 30?")
    assert result.value == "12 * 30 = 360"
    assert result.tool_calls == [ToolCall("calculator", {"expression": "12 * 30"})]
    assert result.messages == [{"tool": "360"}]
    assert "360" in result.prompts[1]


def test_a_wrong_call_is_shown_to_the_model(run, fake):
    fake.replies(CALL.replace("calculator", "calc"), "I cannot.")
    assert "there is no tool `calc`" in run(question="?").prompts[1]


def test_it_gives_up_after_too_many_steps(run, fake):
    fake.replies(CALL, CALL)
    with pytest.raises(PieError, match="no answer within 2 steps"):
        run(question="?", max_steps=2)
