"""Contexts and streams of the SDK against its fake host, under plain Python."""

from __future__ import annotations

import asyncio
import gc

import pytest

from inferlet import Adapter, Busy, Context, InvalidInput, Model, NotFound, Sampler, _transport, session, testing
from inferlet._plain_json import dump_json
from inferlet.testing import FakeHost, run_inferlet


def run(main, **kwargs):
    return run_inferlet(main, **kwargs).value


def host() -> FakeHost:
    return _transport.host


# Adapters.


def test_a_context_keeps_its_adapter_through_forks_and_saving():
    async def main():
        ctx = Context(adapter="pirate")
        other = Context(adapter=Adapter("pirate"))
        assert [each.adapter for each in (ctx, other, ctx.fork(), Context())] == ["pirate", "pirate", "pirate", None]
        ctx.user("A")
        await ctx.save("story")
        assert Context.open("story").adapter == "pirate"
        return [host().adapter_of[each._id] for each in (ctx, other, ctx.fork())]

    assert run(main, adapters=["pirate"]) == ["pirate"] * 3


def test_adapters_are_listed_and_described():
    async def main():
        with pytest.raises(NotFound, match="no adapter called `poet`"):
            Context(adapter="poet")
        with pytest.raises(NotFound, match="no adapter called `poet`"):
            _ = Adapter("poet").info
        info = Adapter("pirate").info
        return [Adapter.names(), info.adapter_id, info.rank, info.num_bytes]

    assert run(main, adapters=["pirate"]) == [["pirate"], "id of pirate", 8, 1024]


# Chat.


def test_a_chat_is_rendered_by_the_template_and_goes_on():
    async def main():
        ctx = Context()
        ctx.system("S").user("A")
        await ctx.generate()
        ctx.user("B")
        await ctx.generate()
        return [ctx.text, ctx.messages, ctx.last_text]

    text, messages, last = run(main, replies=["one", "two"])
    begin = "<|begin|><|system|>S<|end|><|user|>A<|end|><|assistant|>one<|end|>"
    assert text == begin + "<|user|>B<|end|><|assistant|>two"
    assert [message["content"] for message in messages] == ["S", "A", "one", "B"]
    assert last == "two"


def test_only_what_is_new_is_appended():
    async def main():
        ctx = Context()
        ctx.user("A")
        await ctx.generate()
        before = ctx.tokens
        ctx.user("B")
        after = ctx.tokens
        assert after[: len(before)] == before
        return host().calls.get("context.truncate", 0)

    assert run(main, replies=["one"]) == 0


def test_a_second_message_before_the_reply_takes_the_cue_back():
    async def main():
        ctx = Context()
        ctx.user("A")
        assert ctx.text.endswith("<|assistant|>")
        ctx.user("B")
        return ctx.text

    assert run(main) == "<|begin|><|user|>A<|end|><|user|>B<|end|><|assistant|>"


def test_a_template_that_rewrites_earlier_turns_costs_only_what_differs():
    class Stripping(FakeHost):
        def _render_chat(self, model, messages, tools, cue):
            return super()._render_chat(model, messages.replace("think ", ""), tools, cue)

    async def main():
        ctx = Context()
        ctx.user("A")
        await ctx.generate()
        ctx.user("B")
        return ctx.text

    before = _transport.connect(Stripping(replies=["think x"]))
    try:
        from inferlet._loop import HostLoop

        text = HostLoop().run(main())
    finally:
        _transport.connect(before)
    assert text == "<|begin|><|user|>A<|end|><|assistant|>x<|end|><|user|>B<|end|><|assistant|>"


def test_append_in_a_chat_begins_the_reply():
    async def main():
        ctx = Context()
        ctx.user("A")
        ctx.append("The answer is")
        await ctx.generate()
        ctx.user("B")
        return [ctx.messages[1], ctx.last_text, ctx.text]

    message, last, text = run(main, replies=[" 42"])
    assert message == {"role": "assistant", "content": "The answer is 42"}
    assert last == " 42"
    assert text == "<|begin|><|user|>A<|end|><|assistant|>The answer is 42<|end|><|user|>B<|end|><|assistant|>"


def test_plain_text_needs_no_template():
    async def main():
        ctx = Context()
        ctx.append("Once upon").append(ctx.model.tokenizer.encode(" a"))
        return [await ctx.generate(), ctx.text, host().calls.get("model.render_chat", 0)]

    assert run(main, replies=[" time"]) == [" time", "Once upon a time", 0]


def test_special_tokens_of_untrusted_text_can_be_plain():
    async def main():
        ctx = Context()
        ctx.append("<|end|>", special=False)
        return [ctx.length, ctx.append("<|end|>").length]

    assert run(main) == [7, 8]


def test_tool_results_and_tools_reach_the_template():
    async def main():
        ctx = Context(tools=[{"name": "f"}])
        ctx.user("A").tool({"x": 1})
        return ctx.text

    text = run(main)
    assert '<|system|>Tools: [{"name": "f"}]<|end|>' in text
    assert text.endswith('<|tool|>{"x": 1}<|end|><|assistant|>')


def test_long_token_lists_cross_packed():
    async def main():
        ctx = Context()
        ctx.append([200] * 1000)
        return [ctx.length, host().calls["context.append_packed"]]

    assert run(main) == [1000, 1]


# Forks, truncation, release.


def test_a_fork_has_the_chat_and_goes_its_own_way():
    async def main():
        ctx = Context()
        ctx.user("A")
        fork = ctx.fork()
        mine, other = await asyncio.gather(ctx.generate(), fork.generate().text())
        fork.user("B")
        return [mine, other, ctx.text, fork.text]

    mine, other, text, fork = run(main, replies=["one", "two"])
    assert (mine, other) == ("one", "two")
    assert text.endswith("<|assistant|>one")
    assert fork.endswith("<|assistant|>two<|end|><|user|>B<|end|><|assistant|>")


def test_truncate_forgets_the_messages_that_are_cut_off():
    async def main():
        ctx = Context()
        ctx.user("A")
        length = ctx.length
        await ctx.generate()
        ctx.user("B")
        await ctx.generate()
        ctx.truncate(length)
        again = await ctx.generate()
        ctx.user("C")
        return [again, ctx.text]

    again, text = run(main, replies=["one", "two", "three"])
    assert again == "three"
    assert text == "<|begin|><|user|>A<|end|><|assistant|>three<|end|><|user|>C<|end|><|assistant|>"


def test_truncate_within_a_reply_keeps_its_beginning():
    async def main():
        ctx = Context()
        ctx.user("A")
        length = ctx.length
        await ctx.generate()
        ctx.truncate(length + 3)
        ctx.user("B")
        return ctx.messages

    assert run(main, replies=["abcdef"])[1] == {"role": "assistant", "content": "abc"}


def test_truncate_beyond_the_end_names_both_numbers():
    async def main():
        Context().append("abc").truncate(4)

    with pytest.raises(InvalidInput, match="cannot truncate to 4: the context has 3 tokens"):
        run(main)


def test_contexts_are_released_at_the_end_of_with_and_when_nobody_refers_to_them():
    async def main():
        with Context() as ctx:
            ctx.user("A")
            forks = [ctx.fork() for _ in range(3)]
        one = len(host().contexts)
        forks.clear()
        async with Context():
            pass
        return [one, len(host().contexts), repr(ctx)]

    assert run(main) == [3, 0, "Context(released)"]


def test_a_released_context_says_so():
    async def main():
        ctx = Context()
        ctx.release()
        ctx.release()
        ctx.user("A")

    with pytest.raises(InvalidInput, match="this context has been released"):
        run(main)


# Streams.


def test_chunks_carry_ids_text_index_and_the_end():
    async def main():
        ctx = Context().append("x")
        return [chunk async for chunk in ctx.generate(Sampler.top_k(3), logprobs=True)]

    chunks = run(main, replies=["abcdefghij"])
    assert "".join(chunk["text"] for chunk in chunks) == "abcdefghij"
    assert [chunk["index"] for chunk in chunks] == [0, 4, 8]
    assert all(len(chunk["logprobs"]) == len(chunk["ids"]) for chunk in chunks)
    assert [chunk["finish"] for chunk in chunks] == [None, None, "stop"]
    counts = {"prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 10}
    assert chunks[-1]["usage"] == {**counts, "drafted_tokens": 0, "accepted_tokens": 0}


def test_max_tokens_ends_with_length():
    async def main():
        stream = Context().append("x").generate(max_tokens=5)
        return [await stream, stream.finish, len(stream.ids), stream.is_finished]

    assert run(main, replies=["abcdefghij"]) == ["abcde", "length", 5, True]


def test_stop_text_is_not_part_of_the_reply():
    async def main():
        return await Context().append("x").generate(stop="\n")

    assert run(main, replies=["one\ntwo"]) == "one"


def test_leaving_the_loop_stops_the_generation():
    async def main():
        ctx = Context().append("x")
        stream = ctx.generate()
        async for _ in stream:
            break
        await stream.stop()
        ctx.append("!")
        return [ctx.text, stream.finish, host().calls["generate.stop"]]

    assert run(main, replies=["abcdefghij"]) == ["xabcd!", "stopped", 1]


def test_a_stream_that_nobody_reads_is_stopped():
    async def main():
        ctx = Context().append("x")
        ctx.generate()
        gc.collect()
        return [ctx.append("y").text, host().calls["generate.stop"]]

    assert run(main, replies=["abc"]) == ["xy", 1]


def test_a_stream_that_outlives_its_run_ends_none_of_the_next():
    kept = []

    async def leave():
        kept.append(Context().append("x").generate())

    async def main():
        stream = Context().append("x").generate()
        kept.clear()
        gc.collect()
        return await stream.text()

    run(leave, replies=["abc"])
    assert run(main, replies=["def"]) == "def"


def test_cancelling_a_reader_stops_the_generation():
    async def main():
        ctx = Context().append("x")
        task = asyncio.create_task(ctx.generate().text())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        return [host().calls["generate.stop"], ctx.append("y").text]

    assert run(main, replies=["abc" * 50]) == [1, "xy"]


def test_rewind_takes_tokens_back_and_goes_on():
    async def main():
        ctx = Context().append("x")
        stream, first = ctx.generate(), True
        async for _ in stream:
            if first:
                stream.rewind(2)
                seen, first = [stream.ids.copy(), ctx.last_text], False
        return [len(seen[0]), seen[1], ctx.last_text]

    assert run(main, replies=["abcdef"]) == [2, "ab", "abcdef"]


def test_rewind_beyond_the_beginning_names_both_numbers():
    async def main():
        stream = Context().append("x").generate()
        await anext(stream)
        stream.rewind(9)

    with pytest.raises(InvalidInput, match="cannot rewind 9 tokens: 4 have been received"):
        run(main, replies=["abcdef"])


def test_inject_forces_text():
    async def main():
        stream = Context().append("x").generate()
        await anext(stream)
        stream.inject("XY")
        return await stream

    assert run(main, replies=["abcdef"]) == "abcdXYef"


def test_steering_after_the_end_says_what_to_do_instead():
    async def main():
        stream = Context().append("x").generate()
        await stream
        stream.rewind(1)

    with pytest.raises(InvalidInput) as caught:
        run(main, replies=["abc"])
    assert caught.value.message == "cannot rewind: this reply has ended"
    assert "truncate" in caught.value.hint


def test_pipe_sends_the_text_without_the_program():
    async def main():
        ctx = Context()
        ctx.user("A")
        text = await ctx.generate().pipe(session)
        ctx.user("B")
        return [text, ctx.messages[1]["content"]]

    result = run_inferlet(main, replies=["hello there"])
    assert result.value == ["hello there", "hello there"]
    assert result.messages == ["hello there"]


def test_a_context_is_busy_while_it_generates():
    async def main():
        ctx = Context().append("x")
        stream = ctx.generate()
        async for _ in stream:
            ctx.append("y")

    with pytest.raises(Busy) as caught:
        run(main, replies=["abcdef"])
    assert caught.value.message == "cannot append: a reply is being generated in this context"
    assert "fork()" in caught.value.hint


def test_a_fork_during_a_reply_has_what_was_received():
    async def main():
        ctx = Context()
        ctx.user("A")
        stream = ctx.generate()
        await anext(stream)
        fork = ctx.fork()
        fork.user("B")
        return [await stream, fork.messages[1]["content"]]

    assert run(main, replies=["abcdef"]) == ["abcdef", "abcd"]


# Forward.


def test_forward_appends_and_looks():
    async def main():
        ctx = Context().append("a")
        out = await ctx.forward([], Sampler.greedy(), top_k=2)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(ctx.forward([out.token], top_k=1))
        return [ctx.text, out.top[0][0] == out.token, len(out.top), task.result().token]

    assert run(main) == ["ab", True, 2, None]


def test_forward_in_a_chat_is_part_of_the_reply():
    async def main():
        ctx = Context()
        ctx.user("A")
        await ctx.forward("ye")
        await ctx.forward("s")
        ctx.user("B")
        return ctx.messages[1]["content"]

    assert run(main) == "yes"


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


def test_a_stopped_reply_says_what_was_used():
    async def main():
        ctx = Context()
        ctx.append("ab")
        stream = ctx.generate()
        await anext(stream)
        stream.stop()
        return [stream.finish, stream.usage]

    finish, usage = run(main, replies=["abcdefghij"])
    assert (finish, usage["prompt_tokens"], usage["completion_tokens"]) == ("stopped", 2, 4)


def test_a_plan_says_how_long_and_how_it_guesses():
    plans = []

    async def main():
        start = host().generate.start
        host().generate.start = lambda ctx, plan: plans.append(plan) or start(ctx, plan)
        ctx = Context()
        ctx.append("ab")
        await ctx.generate(timeout=2, speculate="lookup", draft_tokens=5)
        await ctx.generate()

    run(main, replies=["x", "y"])
    assert (plans[0].timeout_s, plans[0].speculation.kind.name, plans[0].speculation.max_tokens) == (2.0, "LOOKUP", 5)
    assert (plans[1].timeout_s, plans[1].speculation) == (None, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": -1}, "timeout has to be a number of seconds from 0"),
        ({"timeout": "1"}, "timeout has to be a number of seconds"),
        ({"speculate": "magic"}, "`speculate` has to be None, `lookup` or `model`"),
        ({"speculate": "lookup", "draft_tokens": 1.5}, "draft_tokens has to be an integer"),
    ],
)
def test_wrong_time_and_guessing_are_named(options, words):
    async def main():
        ctx = Context()
        ctx.append("ab")
        await ctx.generate(**options)

    with pytest.raises(InvalidInput, match=words):
        run(main, replies=["x"])


def test_a_draft_goes_where_the_reply_is():
    drafts = []

    async def main():
        ctx = Context()
        ctx.append("ab")
        stream = ctx.generate()
        await anext(stream)
        stream.draft("efg")
        stream.draft([7, 8])
        drafts.extend(host().drafts)
        text = await stream
        with pytest.raises(InvalidInput, match="cannot draft: this reply has ended"):
            stream.draft("x")
        return text

    assert run(main, replies=["abcdefghij"]) == "abcdefghij"
    assert [(index, len(tokens)) for index, tokens in drafts] == [(4, 3), (4, 2)]


# On the disk.


def test_a_chat_that_was_saved_goes_on_after_it_was_opened():
    async def main():
        ctx = Context()
        ctx.system("S").user("A")
        await ctx.generate()
        await ctx.save("chat", durable=False)
        ctx.user("not saved")
        again = Context.open("chat")
        assert again.last_text == "one"
        again.user("B")
        await again.generate()
        return [again.text, [message["content"] for message in again.messages]]

    text, messages = run(main, replies=["one", "two"])
    begin = "<|begin|><|system|>S<|end|><|user|>A<|end|><|assistant|>one<|end|>"
    assert text == begin + "<|user|>B<|end|><|assistant|>two"
    assert messages == ["S", "A", "one", "B"]


def test_a_saved_context_can_be_cut_like_the_original():
    async def main():
        ctx = Context()
        ctx.user("A")
        await ctx.flush()
        length = ctx.length
        await ctx.generate()
        await ctx.save("chat")
        again = Context.open("chat")
        again.truncate(length)
        return [message["content"] for message in again.messages]

    assert run(main, replies=["one"]) == ["A"]


def test_names_are_listed_and_deleted():
    async def main():
        ctx = Context()
        ctx.append("abc")
        for name in ("b", "a"):
            await ctx.save(name)
        names = [(saved.name, saved.num_tokens) for saved in Context.list()]
        Context.delete("a")
        with pytest.raises(NotFound, match="`a`"):
            Context.delete("a")
        with pytest.raises(NotFound, match="`a`"):
            Context.open("a")
        return [names, [saved.name for saved in Context.list("fake")]]

    assert run(main) == [[["a", 3], ["b", 3]], ["b"]]


# Holes, positions and masks.


class Placing(FakeHost):
    """Keeps what was placed and dropped."""

    def __init__(self):
        super().__init__(replies=["one", "two"])
        self.placed = []

    def _place(self, ctx, tokens, placement):
        super()._place(ctx, tokens, placement)
        self.placed.append((tokens, placement.positions, placement.mask))

    def _start_pass(self, ctx, tokens, sampler, probes, prompt_length, matcher, placement):
        if placement is not None:
            self.placed.append((tokens, placement.positions, placement.mask))
        return super()._start_pass(ctx, tokens, sampler, probes, prompt_length, matcher, placement)


def placed(main, monkeypatch):
    made = []
    monkeypatch.setattr(testing, "FakeHost", lambda **kwargs: made.append(Placing()) or made[0])
    run(main)
    return made[0].placed


def test_masks_cross_as_runs(monkeypatch):
    async def main():
        ctx = Context()
        ctx.append([7, 8, 9])
        ctx.append([1, 2], positions=[3, 3], mask=[[True, False, True, True], [range(1, 3), range(4, 5)]])
        await ctx.forward([3], mask=[[False] * 5 + [True]])
        await ctx.forward([4], positions=range(4, 5))
        await ctx.forward([5], mask=[[range(2, 4), range(3), range(3, 3), range(6, 8)]])
        return ctx.tokens

    assert placed(main, monkeypatch) == [
        ([1, 2], [3, 3], [[0, 1, 1, 2], [1, 2, 1, 1]]),
        ([3], None, [[5, 1]]),
        ([4], [4], None),
        ([5], None, [[0, 4, 2, 2]]),
    ]


@pytest.mark.parametrize(
    ("tokens", "asked", "says"),
    [
        ([1, 2], {"positions": [5]}, "positions needs an entry for each of the 2 tokens; got 1"),
        ([1], {"positions": [-1]}, "a position has to be an integer from 0; got -1"),
        ([1], {"positions": "a"}, "positions has to be a list with an entry for each token; got 'a'"),
        ([1], {"mask": [[True, True], [True]]}, "mask needs an entry for each of the 1 tokens; got 2"),
        ([1], {"mask": [7]}, "the mask of token 0 has to be a list with an entry for each token; got 7"),
        ([1], {"mask": [[1, 0, 1]]}, "the mask of token 0 has to be of bools, or of ranges of tokens; got [1, 0, 1]"),
        ([1], {"mask": [[True, True]]}, "the mask of token 0 has to be of the 3 tokens up to it; got 2"),
        ([1], {"mask": [[True, True, False]]}, "token 0 has to see at least itself; its mask hides it"),
        ([1], {"mask": [[range(1, 4)]]}, "the mask of token 0 has range(1, 4); there are 3 tokens up to it"),
        ([1], {"mask": [[range(2)]]}, "token 0 has to see at least itself; its mask hides it"),
        ([1], {"mask": [[]]}, "token 0 has to see at least itself; its mask hides it"),
    ],
)
def test_a_placement_that_does_not_fit_names_the_token(tokens, asked, says):
    async def main():
        ctx = Context()
        ctx.append([7, 8])
        with pytest.raises(InvalidInput) as append:
            ctx.append(tokens, **asked)
        with pytest.raises(InvalidInput) as forward:
            await ctx.forward(tokens, **asked)
        assert ctx.length == 2
        return [append.value.message, forward.value.message]

    assert run(main) == [says, says]


def test_a_text_has_no_positions_of_its_own():
    async def main():
        with pytest.raises(InvalidInput, match="with positions or a mask has to be a list of token ids; got 'ab'"):
            Context().append("ab", positions=[1, 2])

    run(main)


def test_dropping_changes_neither_tokens_nor_messages():
    async def main():
        ctx = Context()
        ctx.user("A")
        before = ctx.tokens
        ctx.drop(range(2, 5)).user("B")
        assert ctx.tokens[: len(before) - 13] == before[:-13]
        for wrong in (range(-1, 2), range(ctx.length + 1)):
            with pytest.raises(InvalidInput, match=rf"cannot drop .*: the context has {ctx.length} tokens"):
                ctx.drop(wrong)
        for wrong in (range(3, 3), range(4, 2), range(0, 4, 2), 3):
            with pytest.raises(InvalidInput, match=r"cannot drop .*: it names no tokens"):
                ctx.drop(wrong)
        return [message["content"] for message in ctx.messages], host().calls["context.drop"]

    assert run(main) == [["A", "B"], 1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sinks": 4}, "`sinks` need a `window`: they are what is seen besides it"),
        ({"window": 0}, "`window` has to be 1 or more: a token sees at least itself"),
        ({"window": -1}, "window has to be an integer from 0; got -1"),
        ({"window": 2**32}, "window can be 4294967295 at most; got 4294967296"),
        ({"window": 4, "sinks": 0.5}, "sinks has to be an integer from 0; got 0.5"),
    ],
)
def test_windows_are_checked_before_anything_runs(options, says):
    async def main():
        with pytest.raises(InvalidInput) as generate:
            Context().generate(**options)
        with pytest.raises(InvalidInput) as create:
            Context(**options)
        return [generate.value.message, create.value.message]

    assert run(main) == [says, says]


def test_a_context_has_a_window_from_its_first_token_on():
    async def main():
        Context(window=9, sinks=2)
        Context()
        return host().calls["context.slide"]

    assert run(main) == 1
