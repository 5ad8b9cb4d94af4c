"""Contexts of the SDK against its fake host: forks, passes, adapters, the disk, holes."""

from __future__ import annotations

import asyncio

import pytest

from inferlet import Adapter, Context, InvalidInput, NotFound, Sampler, testing
from inferlet.testing import FakeHost
from tests.unit.sdk_runs import host, run

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
