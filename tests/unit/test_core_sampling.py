"""What the core gives to a draw: the history, the random numbers and mirostat's state, through rewinds and forks."""

from __future__ import annotations

import math
from array import array

import pytest

from pie_engine.core.lineage import RandomStream
from pie_engine.core.memory import SamplerMemory
from pie_engine.kv.shared import SharedList
from pie_engine.protocol.plan import Speculation
from pie_engine.protocol.sampling import GREEDY, RANGES, Probes, Sampler, check_sampler
from pie_engine.protocol.to_core import Append, Forward, Truncate
from pie_engine.sampling import plain
from pie_engine.sampling.draw import Draw
from tests.unit.core_rig import Rig

INF = math.inf
PENALTIES = Sampler(repetition_penalty=1.5, frequency_penalty=0.5, presence_penalty=0.3, dry_multiplier=1.0)
RANDOM = Sampler(1.2, xtc_probability=0.5, xtc_threshold=0.2, frequency_penalty=1.0)
MIROSTAT = Sampler(1.0, mirostat_tau=1.2, mirostat_eta=0.5)


def draws_of(rig: Rig, ctx: int, start: int, sampler: Sampler, random: RandomStream, mu: float | None = None) -> float:
    """Draw the tokens of `ctx` from `start` on again, by the definition; returns mirostat's bound after them."""
    tokens, writer = rig.tokens(ctx), rig.driver._inner._writer
    for position in range(start, len(tokens)):
        draw = Draw(
            sampler,
            random.draw(position),
            history=tokens[:position],
            prompt_length=start,
            xtc_uniform=random.draw(position, 1),
            mirostat_mu=mu,
        )
        tokens = rig.tokens(ctx)
        logits = {entry.token: entry.logprob for entry in writer.pseudo(array("i", tokens[:position]), 0)}
        drawn = plain.choose(logits, draw)
        assert drawn.token == tokens[position], f"position {position}"
        mu = drawn.mirostat_mu
    return mu or 0.0


@pytest.mark.parametrize("sampler", [PENALTIES, RANDOM, MIROSTAT], ids=["penalties", "random", "mirostat"])
def test_a_plan_draws_from_its_history_and_stream(sampler: Sampler):
    rig = Rig()
    ctx = rig.context("abcabcabc", seed=7)
    rig.generate(ctx, sampler=sampler, max_tokens=40)
    rig.run()
    assert len(rig.tokens(ctx)) == 49
    draws_of(rig, ctx, 9, sampler, RandomStream(7))


def test_plans_of_one_batch_draw_each_from_its_own_stream():
    """Some of them at other positions than their slots, and with guesses, of which each takes a number more."""
    rig = Rig(max_batch_tokens=256)
    plans = [{}, {"window": 16}, {"speculation": Speculation()}, {"sampler": GREEDY}]
    contexts = [rig.context("abcabcabc" * (1 + number % 3), seed=number) for number in range(12)]
    for number, ctx in enumerate(contexts):
        rig.generate(ctx, **{"sampler": Sampler(0.7), "max_tokens": 40, **plans[number % 4]})
    rig.run()
    assert max(len(rows) for rows in rig.driver.steps) == len(contexts)
    for number, ctx in enumerate(contexts):
        alone = Rig()
        same = alone.context("abcabcabc" * (1 + number % 3), seed=number)
        alone.generate(same, **{"sampler": Sampler(0.7), "max_tokens": 40, **plans[number % 4]})
        alone.run()
        assert rig.tokens(ctx) == alone.tokens(same), number


def test_penalties_change_what_is_greedy():
    free, punished = Rig(), Rig()
    for rig, sampler in ((free, GREEDY), (punished, Sampler(banned_tokens=(0,), presence_penalty=2.0))):
        rig.generate(rig.context("abc"), sampler=sampler, max_tokens=200)
        rig.run()
    assert max(map(free.tokens(1)[3:].count, range(300))) >= max(map(punished.tokens(1)[3:].count, range(300)))
    assert free.tokens(1) != punished.tokens(1)


def test_what_was_taken_back_is_not_counted():
    """After a rewind, the plan goes on as if the tokens had never been; so do forced ones count."""
    rig = Rig()
    ctx = rig.context("abc", seed=3)
    op = rig.generate(ctx, sampler=PENALTIES, max_tokens=30)
    rig.step(12, after_s=0.1)
    rig.steer(op, 4, [70, 71, 70, 71])
    rig.run()
    again = Rig()
    other = again.context("abc", seed=9)
    forced = again.generate(other, sampler=PENALTIES, max_tokens=30)
    again.step(6, after_s=0.1)
    again.steer(forced, 4, [70, 71, 70, 71])
    again.run()
    assert len(rig.tokens(ctx)) == 33
    assert rig.tokens(ctx) == again.tokens(other)


def test_the_bound_of_mirostat_goes_back_with_the_tokens_and_along_with_forks():
    rig = Rig()
    ctx = rig.context("abcd", seed=5)
    rig.generate(ctx, sampler=MIROSTAT, max_tokens=20)
    rig.run()
    tokens = rig.tokens(ctx).copy()
    memory = rig.core._hosts["host-1"].contexts[ctx].memory
    assert memory.bound(24, 1.2) == pytest.approx(draws_of(rig, ctx, 4, MIROSTAT, RandomStream(5)))
    child = rig.fork(ctx, 14)
    rig.send(Truncate(ctx, 14))
    before = draws_of(rig, child, 4, MIROSTAT, RandomStream(5))
    for each, lineage in ((ctx, (-1,)), (child, (0,))):
        assert rig.tokens(each) == tokens[:14]
        rig.generate(each, sampler=MIROSTAT, max_tokens=6)
        rig.run()
        draws_of(rig, each, 14, MIROSTAT, RandomStream(5, lineage), before)


def test_a_seed_and_another_target_start_mirostat_anew():
    rig = Rig()
    ctx = rig.context("abcd", seed=5)
    other = Sampler(1.0, mirostat_tau=2.5)
    for start, sampler, seed in ((4, MIROSTAT, None), (14, MIROSTAT, 8), (24, other, None)):
        rig.generate(ctx, sampler=sampler, max_tokens=10, seed=seed)
        rig.run()
        if start == 14:
            draws_of(rig, ctx, start, sampler, RandomStream(8))
    memory = rig.core._hosts["host-1"].contexts[ctx].memory
    assert memory.bound(34, 1.2) is None
    assert memory.bound(34, 2.5) is not None


def shared(tokens: list[int]) -> SharedList[int]:
    found: SharedList[int] = SharedList(array("i"))
    found.extend(tokens)
    return found


def test_the_memory_belongs_to_positions():
    memory, tokens = SamplerMemory(), shared([1, 2, 3])
    assert memory.history(tokens) == array("i", [1, 2, 3])
    tokens.extend([4, 5])
    assert memory.history(tokens) == array("i", tokens)
    for position, bound in ((5, 2.0), (6, 3.0), (9, 4.0)):
        memory.set_bound(position, 1.0, bound)
    assert [memory.bound(position, 1.0) for position in (5, 6, 7, 9, 10)] == [None, 2.0, 3.0, 3.0, 4.0]
    child = memory.fork(7)
    memory.set_bound(6, 1.0, 9.0)
    assert (memory.bound(20, 1.0), child.bound(20, 1.0)) == (9.0, 3.0)
    memory.truncate(2)
    assert memory.bound(20, 1.0) is None
    assert memory.history(shared([1, 2, 8])) == array("i", [1, 2, 8])
    with pytest.raises(AssertionError, match="shortened"):
        memory.history(shared([1]))


def test_a_draw_that_allows_nothing_fails_its_operation_alone():
    rig = Rig()
    wrong = rig.generate(rig.context("abc"), sampler=Sampler(allowed_tokens=(3,), banned_tokens=(3,)), max_tokens=5)
    right = rig.generate(rig.context("abc"), sampler=Sampler(allowed_tokens=(97, 98)), max_tokens=5)
    rig.run()
    assert rig.heard[wrong].error is not None
    assert rig.heard[wrong].error.code == "invalid_input"
    assert "none of the vocabulary" in rig.heard[wrong].error.message
    assert set(rig.heard[right].ids) <= {97, 98}
    assert len(rig.heard[right].ids) == 5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"temperature": -1.0}, "`temperature` has to be 0 or more; got -1.0"),
        ({"temperature": math.nan}, "`temperature` has to be 0 or more; got nan"),
        ({"temperature": INF}, "`temperature` has to be 0 or more; got inf"),
        ({"top_p": 0.0}, "`top_p` has to be above 0 and at most 1; got 0.0"),
        ({"top_k": -1}, "`top_k` has to be 0 or more; got -1"),
        ({"min_p": 1.5}, "`min_p` has to be from 0 to 1; got 1.5"),
        ({"epsilon_cutoff": 1.0}, "`epsilon_cutoff` has to be 0 or more and below 1; got 1.0"),
        ({"xtc_threshold": 0.6}, "`xtc_threshold` has to be above 0 and at most 0.5; got 0.6"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` has to be above 0; got 0.0"),
        ({"frequency_penalty": 3.0}, "`frequency_penalty` has to be from -2 to 2; got 3.0"),
        ({"banned_tokens": (5, 300)}, "`banned_tokens` has to hold token ids from 0 to 256; got 300"),
        ({"logit_bias": {-1: 1.0}}, "`logit_bias` has to hold token ids from 0 to 256; got -1"),
        ({"logit_bias": {4: INF}}, "`logit_bias` has to be finite, or -inf to ban a token; got inf for token 4"),
        ({"logit_bias": {4: math.nan}}, "`logit_bias` has to be finite, or -inf to ban a token; got nan for token 4"),
        ({"allowed_tokens": ()}, "`allowed_tokens` is empty: no token could be chosen"),
        ({"mirostat_tau": 3.0, "top_k": 5}, "`mirostat_tau` = 3 does not go with `top_k` = 5"),
    ],
    ids=str,
)
def test_a_wrong_sampler_is_refused_with_parameter_value_and_range(fields: dict[str, object], says: str):
    rig = Rig()
    ctx, sampler = rig.context("abcd"), Sampler(**fields)  # type: ignore[arg-type]
    ops = [rig.generate(ctx, sampler=sampler), rig.forward(ctx, [1], sampler)]
    rig.run()
    for op in ops:
        error = rig.heard[op].error
        assert error is not None
        assert (error.code, error.message) == ("invalid_input", says)


def test_every_number_of_a_sampler_has_a_range_that_holds_its_default():
    numbers = {name for name in Sampler.__struct_fields__ if isinstance(getattr(GREEDY, name), int | float)}
    assert numbers == set(RANGES)
    check_sampler(GREEDY, 1)


def test_appended_tokens_are_part_of_the_history():
    rig = Rig()
    ctx = rig.context("abc", seed=2)
    rig.generate(ctx, sampler=RANDOM, max_tokens=5)
    rig.run()
    rig.send(Append(ctx, [100, 101]))
    rig.generate(ctx, sampler=RANDOM, max_tokens=5)
    rig.run()
    draws_of(rig, ctx, 10, RANDOM, RandomStream(2))


def test_a_plan_reports_what_each_token_was_chosen_from():
    rig = Rig()
    ctx = rig.context("abcd", seed=5)
    op = rig.generate(ctx, sampler=Sampler(1.0), max_tokens=12, logprobs=True, top_logprobs=3, entropy=True)
    rig.step(6, after_s=0.1)
    rig.steer(op, 3, [80, 81])
    rig.run()
    chunks = [chunk for chunk in rig.heard[op].chunks if chunk.epoch == 1]
    tokens, writer = rig.tokens(ctx), rig.driver._inner._writer
    for chunk in chunks:
        assert len(chunk.ids) == len(chunk.logprobs) == len(chunk.top) == len(chunk.entropies)
        for index, (logprob, top, entropy) in enumerate(
            zip(chunk.logprobs, chunk.top, chunk.entropies, strict=True), chunk.index
        ):
            if index in (3, 4):
                assert (logprob, top, entropy) == (0.0, [], 0.0)
                continue
            expected = writer.pseudo(array("i", tokens[: 4 + index]), 0)
            assert top == expected[:3]
            assert logprob == next(entry.logprob for entry in expected if entry.token == tokens[4 + index])
            assert entropy == pytest.approx(-sum(math.exp(each.logprob) * each.logprob for each in expected))
    silent = rig.generate(ctx, max_tokens=5)
    rig.run()
    assert all(not (chunk.logprobs or chunk.top or chunk.entropies) for chunk in rig.heard[silent].chunks)


def test_drafted_tokens_are_reported_like_any_other():
    chunks = []
    for speculation in (None, Speculation()):
        rig = Rig(reply="one two three one two three one two three one two three one two three")
        op = rig.generate(
            rig.context("one two three "), logprobs=True, top_logprobs=2, entropy=True, speculation=speculation
        )
        rig.run()
        heard = rig.heard[op]
        parts = [(chunk.ids, chunk.logprobs, chunk.top, chunk.entropies) for chunk in heard.chunks]
        chunks.append([[entry for part in column for entry in part] for column in zip(*parts, strict=True)])
        assert heard.usage is not None
        assert (heard.usage.accepted_tokens > 0) == (speculation is not None)
    assert chunks[0] == chunks[1]


def test_probes_out_of_range_are_refused():
    rig = Rig()
    ctx = rig.context("abcd")
    plan = rig.generate(ctx, top_logprobs=21)
    passes = [rig.new_id() for _ in range(2)]
    rig.send(
        Forward(passes[0], ctx, [], None, Probes(logprobs_of=[257])),
        Forward(passes[1], ctx, [], None, Probes(top_k=21)),
    )
    rig.run()
    messages = [rig.heard[op].error.message for op in (plan, *passes)]  # type: ignore[union-attr]
    assert messages == [
        "`top_logprobs` has to be from 0 to 20 on test-model; got 21",
        "token id 257 is not in the vocabulary of test-model (0 … 256)",
        "`top_k` has to be from 0 to 20 on test-model; got 21",
    ]


def test_a_pass_counts_what_its_program_says_was_generated():
    rig = Rig()
    ctx = rig.context("abcd", seed=5)
    tokens = rig.tokens(ctx)
    writer = rig.driver._inner._writer
    sampler = Sampler(presence_penalty=2.0)
    for prompt_length in (0, 4):
        op = rig.new_id()
        best = writer.pseudo(array("i", tokens), 0)[0].token
        rig.send(Forward(op, ctx, [], Sampler(logit_bias={}), Probes(), prompt_length))
        rig.run()
        assert rig.heard[op].forwarded.token == best  # type: ignore[union-attr]
        op = rig.new_id()
        rig.send(Forward(op, ctx, [best], sampler, Probes(), prompt_length))
        rig.run()
        tokens = rig.tokens(ctx)
        logits = {entry.token: entry.logprob for entry in writer.pseudo(array("i", tokens), 0)}
        expected = plain.choose(logits, Draw(sampler, history=tokens, prompt_length=prompt_length))
        assert rig.heard[op].forwarded.token == expected.token  # type: ignore[union-attr]
