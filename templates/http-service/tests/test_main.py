"""The model is scripted: `pie test` needs neither a GPU nor a network."""

import pytest
from pie_testing import PieError

HELLO = [{"role": "user", "content": "Hello!"}]


def test_it_streams_chunks_and_returns_a_completion(run, fake):
    fake.replies("Hi there!")
    result = run(messages=HELLO)
    pieces = [chunk["choices"][0] for chunk in result.messages]
    assert "".join(piece["delta"]["content"] for piece in pieces) == "Hi there!"
    assert [piece["finish_reason"] for piece in pieces][-1] == "stop"
    choice = result.value["choices"][0]
    assert choice == {"index": 0, "message": {"role": "assistant", "content": "Hi there!"}, "finish_reason": "stop"}


def test_usage_counts_tokens(run, fake):
    fake.replies("Hi there!")
    usage = run(messages=HELLO).value["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_model_sees_the_whole_conversation(run, fake):
    fake.replies("Ann.")
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "I am Ann."},
        {"role": "assistant", "content": "Hello Ann!"},
        {"role": "user", "content": "Who am I?"},
    ]
    prompt = run(messages=talk).prompts[0]
    places = [prompt.index(message["content"]) for message in talk]
    assert places == sorted(places)


def test_without_streaming_there_are_no_messages(run, fake):
    fake.replies("Hi there!")
    result = run(messages=HELLO, stream=False)
    assert result.messages == []
    assert result.value["choices"][0]["message"]["content"] == "Hi there!"


def test_stop_texts_and_max_tokens_end_it(run, fake):
    fake.reply("one, two, three")
    stopped, cut = run(messages=HELLO, stop=[", two"]), run(messages=HELLO, max_tokens=2)
    assert stopped.value["choices"][0]["message"]["content"] == "one"
    assert stopped.value["choices"][0]["finish_reason"] == "stop"
    assert cut.value["choices"][0]["finish_reason"] == "length"
    assert cut.value["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"messages": []}, "`messages` is empty"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "the last of `messages` is of the assistant"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "role"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": HELLO, "temperature": -1}, "temperature"),
    ],
)
def test_a_wrong_request_is_named(run, fake, wrong, message):
    with pytest.raises(PieError, match=message) as caught:
        run(**wrong)
    assert caught.value.code == "invalid_input"


def test_a_conversation_that_is_too_long_is_refused(run, fake):
    fake.limit(context_tokens=64)
    with pytest.raises(PieError) as caught:
        run(messages=[{"role": "user", "content": "word " * 100}])
    assert caught.value.code == "context_too_long"
