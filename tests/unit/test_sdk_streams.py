"""Replies as they come: chunks, ends, steering, what they cost."""

from __future__ import annotations

import asyncio
import gc

import pytest

from inferlet import Busy, Context, InvalidInput, Sampler, session
from inferlet.testing import run_inferlet
from tests.unit.sdk_runs import host, run


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
        gc.collect()  # streams that other tests have left behind
        before = host().calls.get("generate.stop", 0)
        ctx = Context().append("x")
        ctx.generate()
        gc.collect()
        return [ctx.append("y").text, host().calls["generate.stop"] - before]

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
