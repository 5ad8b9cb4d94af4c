"""`inferlet.Sampler` refuses what the engine would refuse, in its words, and crosses unharmed; probes come back."""

from __future__ import annotations

import dataclasses
import inspect
import math

import pytest

from inferlet import Beams, Context, InvalidInput, Sampler, Usage, _transport
from inferlet.generation import GenerateOptions
from inferlet.sampler import _DEFAULTS, _RANGES, SamplerOptions
from inferlet.testing import FakeHost, run_inferlet
from pie_engine import errors
from pie_engine.host.samplers import sampler_of
from pie_engine.protocol import sampling

VALUES = [-3.0, -2, -1.0, 0, 0.0, 0.1, 0.5, 0.6, 1, 1.0, 1.5, 2, 3.5, 10, 11.0, 1e300, math.inf, -math.inf, math.nan]
ALL = {
    "temperature": 0.7,
    "top_k": 30,
    "top_p": 0.9,
    "min_p": 0.05,
    "typical_p": 0.8,
    "epsilon_cutoff": 1e-3,
    "eta_cutoff": 2e-3,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.2,
    "mirostat_eta": 0.2,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.25,
    "presence_penalty": -0.5,
    "penalty_window": 64,
    "dry_multiplier": 0.8,
    "dry_base": 2.0,
    "dry_allowed_length": 3,
    "dry_breakers": (7, "\n"),
    "logit_bias": {5: -math.inf, 6: 1.5},
    "allowed_tokens": [5, 6, 7],
    "banned_tokens": [8],
}


def crossed(sampler: Sampler) -> sampling.Sampler:
    """As the core gets it."""
    host = FakeHost()
    before = _transport.connect(host)
    try:
        return sampler_of(dataclasses.asdict(sampler._record(Context().model)))
    finally:
        _transport.connect(before)


def refusal(make) -> tuple[str, str] | None:
    try:
        make()
    except (InvalidInput, errors.InvalidInput) as error:
        return error.message, error.hint
    return None


@pytest.mark.parametrize("name", sampling.RANGES)
def test_sdk_and_engine_refuse_the_same_values_in_the_same_words(name: str):
    is_integer = isinstance(getattr(sampling.GREEDY, name), int)
    for value in VALUES:
        if is_integer and not isinstance(value, int):
            continue
        theirs = refusal(lambda value=value: sampling.check_sampler(sampling.Sampler(**{name: value}), 100))
        ours = refusal(lambda value=value: Sampler(**{name: value}))
        assert ours == theirs, value
        if name != "temperature":
            mixed = {"mirostat_tau": 2.0, name: value}
            theirs = refusal(lambda mixed=mixed: sampling.check_sampler(sampling.Sampler(**mixed), 100))
            assert refusal(lambda mixed=mixed: Sampler(**mixed)) == theirs


def test_sdk_and_engine_know_the_same_parameters_with_the_same_defaults():
    assert set(_RANGES) == set(sampling.RANGES)
    assert list(_DEFAULTS) == list(SamplerOptions.__annotations__) == list(sampling.Sampler.__struct_fields__)
    engine = {name: getattr(sampling.GREEDY, name) for name in _DEFAULTS}
    assert engine | {"temperature": 1.0, "dry_breakers": ("\n", ":", '"', "*")} == _DEFAULTS


def test_every_parameter_arrives():
    arrived = crossed(Sampler(**ALL))
    newline = FakeHost().encode("\n")[0]
    expected = ALL | {"dry_breakers": (7, newline), "allowed_tokens": (5, 6, 7), "banned_tokens": (8,)}
    assert arrived == sampling.Sampler(**expected)
    assert crossed(Sampler.mirostat(3.0, eta=0.3)) == sampling.Sampler(1.0, mirostat_tau=3.0, mirostat_eta=0.3)


def test_a_common_sampler_crosses_small():
    host = FakeHost()
    before = _transport.connect(host)
    try:
        for sampler in (Sampler(), Sampler.greedy(), Sampler.min_p(0.1, top_p=0.9), Sampler(penalty_window=0)):
            assert sampler._record(Context().model).more is None
        assert crossed(Sampler.min_p(0.1)) == sampling.Sampler(1.0, min_p=0.1)
    finally:
        _transport.connect(before)


def test_samplers_are_made_from_one_another():
    base = Sampler.top_p(0.9, temperature=0.7)
    assert base.replace(repetition_penalty=1.1) == Sampler(temperature=0.7, top_p=0.9, repetition_penalty=1.1)
    assert base == Sampler(temperature=0.7, top_p=0.9)
    assert repr(base) == "Sampler(temperature=0.7, top_p=0.9)"
    assert repr(Sampler.greedy(presence_penalty=1)) == "Sampler.greedy(presence_penalty=1.0)"
    assert repr(Sampler()) == "Sampler()"
    assert Sampler.typical(0.9).replace(typical_p=1.0) == Sampler()
    assert len({base, base.replace(), Sampler.greedy(), Sampler.greedy(logit_bias={3: 1.0})}) == 3
    assert Sampler.greedy().is_greedy
    assert not Sampler.mirostat(3.0).is_greedy
    with pytest.raises(InvalidInput, match="`min_p` has to be from 0 to 1; got 2"):
        base.replace(min_p=2)


def test_breakers_are_the_last_token_of_a_text():
    ids = crossed(Sampler(dry_multiplier=1.0, dry_breakers=["\n", "ab", 3])).dry_breakers
    assert ids == (FakeHost().encode("\n")[0], FakeHost().encode("b")[0], 3)
    assert crossed(Sampler(banned_tokens=[1])).dry_breakers == ()
    assert len(crossed(Sampler(dry_multiplier=1.0)).dry_breakers) == 4


def test_forward_looks_at_what_is_asked_for():
    async def main():
        ctx = Context().append("a")
        b = ctx.tokens[-1] + 1
        bare = await ctx.forward()
        out = await ctx.forward(
            [], Sampler.greedy(), top_k=2, logprobs_of=[b, b + 2], entropy=True, logits=True, hidden=True
        )
        assert (bare.top, bare.logprobs, bare.entropy, bare.logits, bare.hidden) == ([], {}, None, None, None)
        assert out.logprobs == {b: math.log(0.5), b + 2: math.log(0.5) * 3}
        assert list(out.hidden) == [b - 1]
        return [len(out.top), out.entropy, len(out.logits), max(out.logits), out.logits.index(1.0) == b]

    assert run_inferlet(main).value == [2, 1.25, 256, 1.0, True]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"logprobs_of": ["a"]}, "`logprobs_of` has to be token ids, integers from 0; got 'a'"),
        ({"top_k": -1}, "top_k has to be an integer from 0; got -1"),
        ({"prompt_length": 1.5}, "prompt_length has to be an integer from 0; got 1.5"),
    ],
)
def test_forward_names_a_wrong_argument(options, says):
    async def main():
        await Context().append("a").forward(**options)

    with pytest.raises(InvalidInput) as caught:
        run_inferlet(main)
    assert caught.value.message == says


def test_a_stream_reports_distributions_and_entropies():
    async def main():
        ctx = Context().append("a")
        stream = ctx.generate(top_logprobs=2, entropy=True)
        async for chunk in stream:
            assert len(chunk.top) == len(chunk.entropies) == len(chunk.ids)
            if chunk.index == 4:
                stream.rewind(2)
        assert [[token for token, _ in top] for top in stream.top] == [[each, each + 1] for each in stream.ids]
        plain = ctx.generate()
        await plain
        return [stream.entropies, plain.top, plain.entropies]

    assert run_inferlet(main, replies=["hello you", "x"]).value == [[1.25] * 9, [], []]


def test_n_replies_come_from_forks_that_read_the_prompt_once():
    async def main():
        ctx = Context()
        ctx.user("Hi")
        streams = await ctx.generate_n(3, Sampler.temperature(1.0), max_tokens=40, seed=7)
        texts = [await stream for stream in streams]
        streams[1].context.user("And?")
        return [texts, [m["content"] for m in streams[1].context.messages], [m["content"] for m in ctx.messages]]

    result = run_inferlet(main, replies=["one", "two", "three"])
    assert result.value == [["one", "two", "three"], ["Hi", "two", "And?"], ["Hi"]]
    assert len(set(result.prompts)) == 1


def test_n_replies_take_what_one_takes():
    one = inspect.signature(Context.generate).parameters
    assert set(GenerateOptions.__annotations__) == set(one) - {"self", "sampler"}


def test_n_replies_have_seeds_of_their_own_and_a_plan_each():
    host, seeds = FakeHost(replies=["a", "b"]), []
    start = host.generate.start
    host.generate.start = lambda ctx, plan: (seeds.append(plan.seed), start(ctx, plan))[1]

    async def main():
        for n in (0, True, "2"):
            with pytest.raises(InvalidInput, match="`n` has to be an integer, 1 or more"):
                await Context().generate_n(n, Sampler())
        return [await each for each in await Context().append("x").generate_n(2, Sampler(), seed=2**64 - 1)]

    from inferlet._loop import HostLoop

    before = _transport.connect(host)
    loop = HostLoop()
    try:
        assert loop.run(main()) == ["a", "b"]
    finally:
        loop.close()
        _transport.connect(before)
    assert seeds == [2**64 - 1, 0]
    assert host.calls["context.flush"] == 1


def test_a_beam_search_returns_its_replies_best_first_and_leaves_the_context_alone():
    async def main():
        ctx = Context()
        ctx.user("Hi")
        beams = await ctx.generate_beams(4, num_return_sequences=2, stop="!", max_tokens=6)
        ctx.append(beams.best.ids)
        ctx.user("And?")
        contents = [message["content"] for message in ctx.messages]
        return [[each.text for each in beams.hypotheses], beams.usage.completion_tokens, contents]

    result = run_inferlet(main, replies=["one!", "threefold"])
    assert result.value == [["one", "threef"], 9, ["Hi", "one", "And?"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": "4"}, "num_beams has to be an integer from 0; got '4'"),
        ({"early_stopping": 1}, "`early_stopping` has to be False, True or `never`; got 1"),
        ({"early_stopping": "yes"}, "`early_stopping` has to be False, True or `never`; got 'yes'"),
        ({"length_penalty": "1"}, "length_penalty has to be a number; got '1'"),
        ({"length_penalty": float("inf")}, "length_penalty has to be a number; got inf"),
        ({"stop_tokens": ["a"]}, "stop_tokens has to be token ids, integers from 0; got 'a'"),
    ],
)
def test_wrong_arguments_of_a_beam_search_never_reach_the_host(options, message):
    async def main():
        await Context().append("x").generate_beams(**{"num_beams": 2, **options})

    with pytest.raises(InvalidInput) as caught:
        run_inferlet(main, replies=["x"])
    assert caught.value.message == message


def test_a_search_without_a_reply_has_no_best_one():
    with pytest.raises(InvalidInput, match="has found nothing"):
        _ = Beams([], Usage(1, 0, 0)).best
