"""The SDK's calls to the host, in the sandbox."""

from __future__ import annotations

from inferlet.testing import FakeHost


def test_a_generation_in_the_sandbox(sandbox):
    program = """
    import asyncio
    from inferlet import Context, Sampler, session

    async def main(prompt: str) -> list:
        with Context() as ctx:
            ctx.system("S")
            ctx.user(prompt)
            fork = ctx.fork()
            async for chunk in ctx.generate(Sampler.top_p(0.9, temperature=0.7), max_tokens=100, logprobs=True):
                session.send(chunk.text)
            out = await fork.forward([], Sampler.greedy(), top_k=2)
            stream = fork.generate()
            text = await stream
            return [ctx.last_text, chunk.finish, chunk.usage, out.top[0][0] == out.token, text]
    """
    outcome = sandbox.call("run", program, {"prompt": "Hi"}, host=FakeHost(replies=["Hello you", "Two"]))
    assert outcome.value == [
        "Hello you",
        "stop",
        {"prompt_tokens": 9, "cached_tokens": 0, "completion_tokens": 9, "drafted_tokens": 0, "accepted_tokens": 0},
        True,
        "Two",
    ]
    assert "".join(outcome.host.messages) == "Hello you"
    assert outcome.host.contexts == {}


def test_guesses_times_and_stops_in_the_sandbox(sandbox):
    program = """
    from inferlet import Context

    async def main() -> list:
        ctx = Context()
        ctx.append("ab")
        stream = ctx.generate(timeout=1.5, speculate="lookup", draft_tokens=5)
        await anext(stream)
        stream.draft("efg")
        stream.stop()
        return [stream.finish, stream.usage, ctx.text]
    """
    outcome = sandbox.call("run", program, host=FakeHost(replies=["abcdefgh"]))
    counts = {"prompt_tokens": 2, "cached_tokens": 0, "completion_tokens": 4, "drafted_tokens": 0, "accepted_tokens": 0}
    assert outcome.value == ["stopped", counts, "ababcd"]
    assert [(index, len(tokens)) for index, tokens in outcome.host.drafts] == [(4, 3)]


def test_holes_windows_positions_and_masks_in_the_sandbox(sandbox):
    class Host(FakeHost):
        def __init__(self):
            super().__init__(replies=["Hello"])
            self.told = []

        def _place(self, ctx, tokens, placement):
            self.told.append((tokens, placement.positions, placement.mask))
            super()._place(ctx, tokens, placement)

        def _drop(self, ctx, first, end):
            self.told.append((first, end))
            super()._drop(ctx, first, end)

        def _slide(self, ctx, window, sinks):
            self.told.append((window, sinks))
            super()._slide(ctx, window, sinks)

        def _start(self, ctx, plan):
            self.told.append((plan.window, plan.sinks))
            return super()._start(ctx, plan)

        def _start_pass(self, ctx, tokens, sampler, probes, prompt_length, matcher, placement):
            self.told.append((placement.positions, placement.mask))
            return super()._start_pass(ctx, tokens, sampler, probes, prompt_length, matcher, placement)

    program = """
    from inferlet import Context, InvalidInput

    async def main() -> list:
        ctx = Context(window=200, sinks=2)
        ctx.append([371, 372, 373])
        ctx.append([374, 375], positions=[9, 9])
        await ctx.forward([376], mask=[[range(3), range(5, 6)]])
        ctx.drop(range(1, 3))
        text = await ctx.generate(window=100, sinks=4)
        try:
            ctx.drop(range(99))
        except InvalidInput as error:
            return [text, error.message, ctx.length]
    """
    outcome = sandbox.call("run", program, host=Host())
    assert outcome.value == ["Hello", "cannot drop range(0, 99): the context has 11 tokens", 11]
    assert outcome.host.told == [(200, 2), ([374, 375], [9, 9], None), (None, [[0, 3, 2, 1]]), (1, 3), (100, 4)]


def test_a_matcher_in_the_sandbox(sandbox):
    program = """
    from inferlet import Context, Grammar, Sampler

    async def main() -> list:
        ctx = Context()
        ctx.append("?")
        matcher = ctx.matcher(Grammar.choice(["yes", "no"]))
        first = await ctx.forward(sampler=Sampler.greedy(), matcher=matcher, top_k=1, top_allowed=True)
        matcher.advance(first.token)
        other = matcher.fork()
        matcher.rollback(1)
        state, fitting = await other.look(), await matcher.num_fitting([first.token])
        other.release()
        return [ctx.model.tokenizer.decode([first.token]), state, fitting]
    """
    outcome = sandbox.call("run", program, host=FakeHost(replies=["yes"]))
    assert outcome.value == ["y", {"may_end": False, "is_complete": False, "forced": []}, 1]


def test_a_beam_search_in_the_sandbox(sandbox):
    program = """
    from inferlet import Context

    async def main() -> list:
        ctx = Context()
        ctx.append("ab")
        beams = await ctx.generate_beams(4, num_return_sequences=2, early_stopping="never", stop="!", max_tokens=9)
        ctx.append(beams.best.ids)
        return [[each.text, each.score, each.finish] for each in beams.hypotheses] + [beams.usage, ctx.text]
    """
    outcome = sandbox.call("run", program, host=FakeHost(replies=["one!", "three"]))
    counts = {"prompt_tokens": 2, "cached_tokens": 0, "completion_tokens": 8, "drafted_tokens": 0, "accepted_tokens": 0}
    assert outcome.value == [["one", -0.25, "stop"], ["three", -0.5, "stop"], counts, "abone"]
