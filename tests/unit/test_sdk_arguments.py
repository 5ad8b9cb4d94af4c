"""Wrong arguments and forgotten words, named before anything runs."""

from __future__ import annotations

import pytest

from inferlet import Context, InvalidInput, Model, NotFound, Sampler, session
from inferlet._plain_json import dump_json
from tests.unit.sdk_runs import run

# A forgotten `await`.


def test_a_stream_says_how_to_get_its_text():
    async def main():
        return f"{Context().append('x').generate()}"

    assert run(main, replies=["abc"]) == "<Stream: write `await ctx.generate(…)` for the text>"


async def _answer() -> str:
    return "42"


@pytest.mark.parametrize(
    ("use", "message", "hint"),
    [
        (session.send, "session.send: a value of type Stream is not JSON; write `await`", ""),
        (lambda stream: session.send([stream]), "session.send: a value of type Stream is not JSON; write `await`", ""),
        (lambda stream: Context().tool(stream), "the result of a tool: a value of type Stream is not JSON; write", ""),
        (lambda stream: Context().user(stream), "a user message has to be a text; got Stream", "write `await`"),
    ],
)
def test_a_forgotten_await_is_named(use, message, hint):
    async def main():
        use(Context().append("x").generate())

    with pytest.raises(InvalidInput) as caught:
        run(main, replies=["x"])
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)


def test_a_coroutine_is_no_json_either():
    coroutine = _answer()
    with pytest.raises(TypeError, match="a value of type coroutine is not JSON; write `await` before the call"):
        dump_json({"answer": coroutine})
    coroutine.close()


# Arguments.


@pytest.mark.parametrize(
    ("wrong", "shown", "hint"),
    [
        (0.7, "0.7", "write `Sampler.temperature(0.7)`"),
        (0, "0", "write `Sampler.temperature(0)`"),
        ("greedy", "'greedy'", "write `Sampler.greedy()`"),
        ("Tell a story.", "'Tell a story.'", "ctx.user(…)"),
        ({"top_k": 4}, "{'top_k': 4}", "Sampler.top_k(40)"),
    ],
)
@pytest.mark.parametrize("verb", ["generate", "forward"])
def test_what_is_no_sampler_is_named(verb, wrong, shown, hint):
    async def main():
        ctx = Context()
        await (ctx.generate(wrong) if verb == "generate" else ctx.forward([200], wrong))

    with pytest.raises(InvalidInput) as caught:
        run(main, replies=["x"])
    assert caught.value.message == f"`sampler` has to be a Sampler; got {shown}"
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampler.top_p(1.5), "`top_p` has to be above 0 and at most 1; got 1.5"),
        (lambda: Sampler.top_p(0), "`top_p` has to be above 0 and at most 1; got 0"),
        (lambda: Sampler.temperature(-1), "`temperature` has to be 0 or more; got -1"),
        (lambda: Sampler.temperature("hot"), "`temperature` has to be a number, 0 or more; got 'hot'"),
        (lambda: Sampler.top_k(2.5), "`top_k` has to be an integer, 0 or more; got 2.5"),
        (lambda: Sampler.top_k(True), "`top_k` has to be an integer, 0 or more; got True"),
        (lambda: Sampler(logit_bias=[1]), "`logit_bias` has to be a dict from token ids to numbers; got [1]"),
        (lambda: Sampler(logit_bias={"a": 1}), "`logit_bias` has to be token ids, integers from 0; got 'a'"),
        (lambda: Sampler(banned_tokens="a"), "`banned_tokens` has to be a list of token ids; got 'a'"),
        (lambda: Sampler(top_n=3), "a sampler has no `top_n`"),
    ],
)
def test_samplers_refuse_what_makes_no_sense(make, message):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.message == message


def test_generate_names_a_wrong_argument():
    async def main():
        Context().append("x").generate(max_tokens="5")

    with pytest.raises(InvalidInput, match="max_tokens has to be an integer from 0; got '5'"):
        run(main)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda ctx: ctx.append([-1]), "what is appended has to be token ids, integers from 0; got -1"),
        (lambda ctx: ctx.append(["a"]), "what is appended has to be token ids, integers from 0; got 'a'"),
        (lambda ctx: ctx.append(5), "what is appended has to be a list of token ids; got 5"),
        (lambda ctx: ctx.append("\ud800"), "what is appended has half of a character at position 0"),
        (lambda ctx: ctx.user(5), "a user message has to be a text; got int"),
        (lambda ctx: ctx.generate(stop=[1]), "stop has to be a text; got int"),
        (lambda ctx: ctx.generate(stop=5), "stop has to be a text or a list of texts; got 5"),
        (lambda ctx: ctx.generate(stop_tokens=["a"]), "stop_tokens has to be token ids, integers from 0; got 'a'"),
        (lambda ctx: ctx.generate(chunk_ms=1.5), "chunk_ms has to be an integer from 0; got 1.5"),
        (lambda ctx: ctx.generate(seed="x"), "seed has to be an integer; got 'x'"),
        (lambda ctx: Model().tokenizer.decode([1.5]), "what is decoded has to be token ids, integers from 0; got 1.5"),
        (lambda ctx: Context(5), "the name of a model has to be a text; got int"),
    ],
)  # fmt: skip
def test_wrong_arguments_never_reach_the_host(use, message):
    async def main():
        use(Context())

    with pytest.raises(InvalidInput) as caught:
        run(main, replies=["x"])
    assert caught.value.message == message


def test_models_by_name():
    async def main():
        assert Model.names() == ["fake"]
        return Model("nope").info

    with pytest.raises(NotFound, match="no model `nope` is loaded"):
        run(main)


def test_outside_of_pie_the_error_says_what_to_do():
    with pytest.raises(RuntimeError, match="`pie run`"):
        Context()
