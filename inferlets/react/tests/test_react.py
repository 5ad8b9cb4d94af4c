"""react with pie-tiny, and with a model that says what it is told to."""

import re

import pytest

from pie_testing import PieError

STEP = re.compile(r"Action: (\w+)\[(.*)\]\nObservation: (.*)\n")


@pytest.mark.model("pie-tiny")
@pytest.mark.parametrize(
    ("question", "wanted"), [("How much does the lamp cost?", "lookup"), ("What is 12 + 30?", "calculator")]
)
def test_it_acts_observes_and_answers(run, program, question, wanted):
    result = run(program, question=question)
    steps = STEP.findall(result.text)
    assert [tool for tool, _, _ in steps] == [wanted] * len(steps) != []
    assert result.text.endswith(f"Final Answer: {result.value}")


@pytest.mark.model("pie-tiny")
def test_observations_are_the_tools_own(run, program):
    for _, expression, observation in STEP.findall(run(program, question="What is 12 + 30?").text):
        left, sign, right = expression.split()
        value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]
        assert observation == str(value)


def test_an_observation_that_the_model_makes_up_is_replaced(run, program, fake):
    fake.replies("Thought: I add.\nAction: calculator[2 + 2]\nObservation: 5", "\nFinal Answer: 4")
    result = run(program, question="What is 2 + 2?")
    assert result.value == "4"
    assert "Observation: 4\n" in result.prompts[1]
    assert "Observation: 5" not in result.text


@pytest.mark.parametrize(
    ("action", "observation"),
    [
        ("Action: search[x]", "there is no tool search"),
        ("Action: calculator[2 +]", "error: "),
        ("I just know.", "write an Action: tool[input]"),
    ],
)
def test_a_wrong_action_is_shown_to_the_model(run, program, fake, action, observation):
    fake.replies(f"{action}\nObservation:", "\nFinal Answer: ?")
    assert observation in run(program, question="?").prompts[1]


def test_it_gives_up_after_too_many_steps(run, program, fake):
    fake.reply("Action: calculator[1 + 1]\nObservation:")
    with pytest.raises(PieError, match="no answer within 2 steps"):
        run(program, question="?", max_steps=2)
