"""The model is scripted: `pie test` needs neither a GPU nor a network."""

from math import log

import pytest

from decoding import choose

WITH_TEXT = {"Paris": 5, "Lyon": 4}
WITHOUT = {"Paris": 9, "Lyon": 1}


@pytest.fixture
def capital(fake):
    """A model that knows better than the text."""
    fake.reply([WITH_TEXT, "."], match="Context: It is Lyon.")
    fake.reply([WITHOUT, "."])


def test_the_text_wins_over_what_the_model_knows(run, capital):
    result = run(question="Capital?", facts="It is Lyon.", weight=0.5)
    assert result.text == result.value["text"] == "Lyon."
    assert result.value["num_changed"] == 1


def test_without_weight_it_is_greedy(run, capital):
    result = run(question="Capital?", facts="It is Lyon.", weight=0)
    assert result.value["text"] == "Paris."
    assert result.value["num_changed"] == 0


def test_each_token_is_one_pass_of_both_contexts(run, fake):
    fake.reply("one two three")
    result = run(question="Count.")
    assert result.num_forwards == 2 * (result.value["num_tokens"] + 1)  # the last one finds the end
    assert result.passes <= result.value["num_tokens"] + 2


def test_it_ends_at_max_tokens(run, fake):
    fake.reply("one two three four five six")
    assert run(question="Count.", max_tokens=2).value["num_tokens"] == 2


def test_characters_of_several_tokens_arrive_whole(run, fake):
    fake.reply("Grüße 🦊!")
    result = run(question="?")
    assert result.text == result.value["text"] == "Grüße 🦊!"


def test_what_is_not_plausible_is_not_chosen():
    likely = [(0, log(0.95)), (1, log(0.01))]
    assert choose(likely, prior=[10.0, -10.0], weight=5) == 0
