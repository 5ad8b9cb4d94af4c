"""The model is scripted: `pie test` needs neither a GPU nor a network."""

import pytest
from pie_testing import PieError


def test_it_grows_scores_and_prunes(run, fake):
    fake.reply(["The ", {"fox": 1, "dog": 1, "cat": 1}, " ", {"ran": 3, "slept": 1}, " home."])
    result = run(prompt="?", keep=2, width=4, step_tokens=8, temperature=1.0)
    grown = [message["grown"] for message in result.messages]
    assert grown[0] == 4
    assert max(grown) <= 8
    assert result.value["num_branches"] == sum(grown) == result.calls.count("context.fork")
    assert result.value["text"].endswith("home.")
    for message in result.messages:
        assert len(message["scores"]) <= 2
        assert message["scores"] == sorted(message["scores"], reverse=True)


def test_the_likelier_branch_wins(run, fake):
    fake.reply([{"yes": 3, "no": 1}])
    result = run(prompt="?", keep=1, width=12, temperature=1.0)
    assert result.value["text"] == "yes"


def test_branches_that_wrote_the_same_are_one(run, fake):
    fake.reply("Always the same.")
    assert [len(message["scores"]) for message in run(prompt="?", keep=3, temperature=0).messages] == [1]


def test_it_ends_after_the_last_step(run, fake):
    fake.reply("one two three four five six seven eight nine ten")
    result = run(prompt="?", steps=2, step_tokens=4)
    assert [message["step"] for message in result.messages] == [1, 2]
    assert "one two three four five six seven eight nine ten".startswith(result.value["text"])


@pytest.mark.budget(passes=20, pages=16)
def test_branches_share_the_prompt_and_are_decoded_together(run, fake):
    fake.reply("one two three")
    run(prompt="a long question " * 10, keep=4, width=2)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"width": 0}, {"steps": 0}])
def test_a_search_needs_at_least_one_of_each(run, fake, wrong):
    with pytest.raises(PieError, match="have to be 1 or more"):
        run(prompt="?", **wrong)
