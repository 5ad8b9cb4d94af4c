"""The model is scripted: `pie test` needs neither a GPU nor a network."""

import pytest

ROOM = "In which room is Ann?"
LAMP = "How much does the lamp cost?"


def test_it_answers_from_the_documents(run, fake):
    fake.replies("In room 214.")
    result = run(questions=ROOM)
    assert [answer["text"] for answer in result.value] == ["In room 214."]
    assert result.text == f"{ROOM}\nIn room 214.\n"
    assert "Ann is in room 214." in result.prompts[0]
    assert ROOM in result.prompts[0]


def test_the_documents_are_read_in_the_first_run_only(run, fake):
    fake.reply("214")
    first, second = run(questions=ROOM), run(questions=ROOM)
    assert "context.save" in first.calls
    assert "context.save" not in second.calls
    assert second.value[0]["tokens_read"] < 20 < second.value[0]["tokens_from_cache"]
    assert first.value[0]["text"] == second.value[0]["text"]


def test_questions_are_forks_that_share_the_documents(run, fake):
    fake.reply("In room 214.", match="room is Ann")
    fake.reply("35 dollars.", match="the lamp cost")
    one, two = run(questions=ROOM), run(questions=f"{ROOM}\n\n{LAMP}\n")
    assert [answer["text"] for answer in two.value] == ["In room 214.", "35 dollars."]
    assert two.calls.count("context.fork") == 2
    assert two.pages <= one.pages + 4


@pytest.mark.budget(passes=1)
def test_without_a_question_the_documents_are_read_and_nothing_is_written(run, fake):
    assert run(questions="").value == []
