"""The model is scripted: `pie test` needs neither a GPU nor a network."""

import pytest
from pie_testing import PieError

from person import Person

TEXT = "Ann is 31 years old and lives in Oslo."


def test_it_returns_the_facts(run, fake):
    fake.replies('{"name": "Ann", "age": 31, "city": "Oslo"}')
    result = run(text=TEXT)
    assert result.value == {"name": "Ann", "age": 31, "city": "Oslo"}
    assert f"Extract name, age and city as JSON: {TEXT}" in result.prompts[0]


def test_what_the_text_does_not_say_may_be_missing(run, fake):
    fake.replies('{"name": "Ann"}')
    assert run(text="Ann is here.").value == {"name": "Ann", "age": None, "city": None}


@pytest.mark.budget(tokens=120)
def test_what_was_made_up_is_asked_for_again_in_a_fork(run, fake):
    fake.replies('{"name": "Ann", "age": 13, "city": "Rome"}', '{"name": "Ann", "age": 31, "city": "Oslo"}')
    result = run(text=TEXT)
    assert result.value["age"] == 31
    assert result.logs == [("warning", "attempt 1 made up: age, city")]
    assert result.prompts[0] == result.prompts[1]
    assert result.calls.count("context.fork") == 2


def test_a_text_that_says_nothing_is_refused(run, fake):
    fake.reply('{"name": "Ben"}')
    with pytest.raises(PieError, match="the text does not say name"):
        run(text=TEXT, attempts=2)


def test_an_answer_that_was_cut_is_an_error(run, fake):
    fake.replies('{"name": "Ann", "age": 31, "city": "Oslo"}')
    with pytest.raises(PieError, match="not complete") as caught:
        run(text=TEXT, max_tokens=5)
    assert caught.value.hint == "raise `max_tokens`"


def test_the_check_needs_no_model():
    assert Person("Ann", 13, "Oslo").made_up(TEXT) == ["age"]
    assert Person("ann").made_up(TEXT) == []
