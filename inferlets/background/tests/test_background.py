"""background with a model that says what it is told to."""

import pytest


def test_answers_come_at_once_and_summaries_with_the_result(run, program, fake):
    fake.reply("a summary", match="Summarise")
    fake.reply("Paris.", match="France")
    result = run(program, documents=["one", "two"], questions=["What is the capital of France?"])
    assert result.messages == ["Paris."]
    assert result.value["answers"] == ["Paris."]
    assert result.value["summaries"] == ["a summary", "a summary"]


def test_without_questions_it_only_summarises(run, program, fake):
    fake.reply("a summary", match="Summarise")
    assert run(program, documents=["one"]).value["answers"] == []


def test_each_kind_of_work_has_its_bid(run, program, fake):
    fake.reply("ok", match="")
    calls = run(program, documents=["one", "two"], questions=["?"]).calls
    assert calls.count("scheduling.set-bid") == 3


def test_it_says_what_was_spent(run, program, fake):
    fake.reply("ok", match="")
    assert run(program, documents=["one"], endowment=5).value["spent"] >= 0


@pytest.mark.parametrize("bid", [-1, 1e7])
def test_what_is_no_bid_ends_the_program(run, program, fake, bid):
    fake.reply("ok", match="")
    with pytest.raises(Exception, match="a bid has to be a number of credits from 0 to 1000000"):
        run(program, documents=["one"], low=bid)
