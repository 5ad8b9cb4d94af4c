"""The model is scripted: `pie test` needs neither a GPU nor a network."""


def test_it_streams_the_answer_that_it_returns(run, fake):
    fake.replies("Hello there!")
    result = run(prompt="Hi")
    assert result.text == result.value == "Hello there!"


def test_the_model_sees_the_question(run, fake):
    fake.replies("A server.")
    assert "What is Pie?" in run(prompt="What is Pie?").prompts[0]


def test_without_a_question_it_answers_messages_and_knows_what_was_said(run, fake):
    fake.replies("Hello Ann!", "You are Ann.")
    result = run(inbox=["I am Ann.", "Who am I?", None])
    assert result.text == "Hello Ann!\nYou are Ann.\n"
    assert "I am Ann." in result.prompts[1]
