"""Every step of the sampler against its definition, against Transformers where it has the step, and alone or not."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import transformers
from hypothesis import given, settings
from torch import Tensor

from pie_engine.protocol.sampling import Sampler, check_sampler
from pie_engine.sampling import plain
from pie_engine.sampling.adjust import adjusted
from pie_engine.sampling.draw import NO_DISTRIBUTION, NOTHING_ALLOWED, Draw, Drawn
from pie_engine.sampling.penalties import MAX_DRY_MATCH
from pie_engine.sampling.random import stream_key, uniform
from pie_engine.sampling.sampler import sample
from tests import thoroughness

INF = math.inf
HISTORY = [3, 5, 3, 7, 8, 3, 5, 9, 1, 3, 5, 3, 7]
TRUNCATIONS: list[dict[str, Any]] = [
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"typical_p": 0.3},
    {"typical_p": 0.95},
    {"epsilon_cutoff": 0.01},
    {"epsilon_cutoff": 0.9},
    {"eta_cutoff": 0.02},
    {"eta_cutoff": 0.3},
    {"top_k": 20, "top_p": 0.9},
    {"top_k": 30, "top_p": 0.95, "min_p": 0.05, "typical_p": 0.9},
    {"top_p": 0.8, "epsilon_cutoff": 0.02, "eta_cutoff": 0.05},
    {"temperature": 0.3, "typical_p": 0.5},
    {"temperature": 3.0, "top_p": 0.97, "eta_cutoff": 1e-3},
]
OTHERS: list[dict[str, Any]] = [
    {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    {"xtc_probability": 1.0, "xtc_threshold": 0.5},
    {"xtc_probability": 0.6, "xtc_threshold": 0.05, "min_p": 0.05},
    {"mirostat_tau": 3.0},
    {"mirostat_tau": 0.5, "temperature": 2.0},
]
ADJUSTMENTS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7, "penalty_window": 4},
    {"frequency_penalty": 0.4, "presence_penalty": -0.2},
    {"presence_penalty": 2.0, "penalty_window": 3},
    {"dry_multiplier": 0.8, "dry_allowed_length": 1},
    {"dry_multiplier": 2.0, "dry_base": 3.0, "dry_breakers": (5,)},
    {"logit_bias": {3: 2.0, 4: -INF, 5: -1.5}},
    {"allowed_tokens": (1, 2, 3, 11)},
    {"banned_tokens": (3, 5)},
]


def sampler_of(parameters: dict[str, Any]) -> Sampler:
    sampler = Sampler(**{"temperature": 1.0, **parameters})
    check_sampler(sampler, 1 << 20)
    return sampler


def random_logits(rows: int, vocab: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def as_dict(logits: Tensor) -> dict[int, float]:
    return dict(enumerate(logits.tolist()))


def exact(logits: Tensor, draw: Draw) -> dict[int, float]:
    """The distribution by its definition."""
    return plain.distribution(plain.adjusted(as_dict(logits), draw), draw)


def draw_of(sampler: Sampler, where: float = 0.5, **fields: Any) -> Draw:
    return Draw(sampler, where, history=array("i", HISTORY), prompt_length=5, **fields)


@pytest.mark.parametrize(
    ("parameters", "vocab", "num_draws"),
    [
        *(
            (parameters, vocab, thoroughness.count(1000, 3000))
            for parameters in (*TRUNCATIONS, *OTHERS)
            for vocab in (40, 600)
        ),
        *((parameters, 40, thoroughness.count(800, 1500)) for parameters in ADJUSTMENTS),
    ],
    ids=str,
)
def test_frequencies_follow_the_exact_distribution(parameters: dict[str, Any], vocab: int, num_draws: int) -> None:
    """Chi-square. Seeds are fixed, and the bound is six standard deviations: it does not flake."""
    sampler, logits, key = sampler_of(parameters), random_logits(1, vocab, seed=3), stream_key(1)
    draws = [draw_of(sampler, uniform(key, i), xtc_uniform=uniform(key, i, 1)) for i in range(num_draws)]
    counts = Counter(drawn.token for drawn in sample(logits.expand(num_draws, -1), draws))
    expected: Counter[int] = Counter()
    for is_xtc in (True, False):
        probability = sampler.xtc_probability if is_xtc else 1 - sampler.xtc_probability
        if probability:
            for token, p in exact(logits[0], draw_of(sampler, xtc_uniform=0.0 if is_xtc else 1.0)).items():
                expected[token] += probability * p * num_draws
    assert set(counts) <= set(expected)
    big = [token for token in expected if expected[token] >= 10]
    rest = sum(expected.values()) - sum(expected[token] for token in big)
    statistic = sum((counts[token] - expected[token]) ** 2 / expected[token] for token in big)
    freedom = max(len(big) - (rest < 1), 1)
    assert (statistic - freedom) / math.sqrt(2 * freedom) < 6


def every_sampler() -> st.SearchStrategy[Sampler]:
    """Any of the parameters together."""
    parts = st.lists(st.sampled_from([*TRUNCATIONS, *ADJUSTMENTS, {"temperature": 0.0}]), max_size=4)
    merged = parts.map(lambda some: {key: value for part in some for key, value in part.items()})
    with_xtc = st.tuples(merged, st.sampled_from([{}, *OTHERS[:3]])).map(lambda both: {**both[0], **both[1]})
    with_mirostat = st.tuples(st.sampled_from(ADJUSTMENTS), st.sampled_from(OTHERS[3:])).map(
        lambda both: {**both[0], **both[1]}
    )
    return st.one_of(with_xtc, with_mirostat).map(sampler_of)


@settings(max_examples=thoroughness.count(30, 300), deadline=None)
@given(
    sampler=every_sampler(),
    seed=st.integers(0, 1000),
    where=st.floats(0, 1, exclude_max=True),
    chance=st.floats(0, 1, exclude_max=True),
    mu=st.none() | st.floats(0.1, 8),
    vocab=st.sampled_from([20, 500, 2500]),
    scale=st.sampled_from([0.05, 1.0, 4.0]),
)
def test_every_draw_is_the_one_of_the_definition(
    sampler: Sampler, seed: int, where: float, chance: float, mu: float | None, vocab: int, scale: float
) -> None:
    """But for borders closer than fp32 can tell apart: there the neighbour in the order of likelihood is as right."""
    logits = random_logits(1, vocab, seed, scale)
    draw = draw_of(sampler, where, xtc_uniform=chance, mirostat_mu=mu)
    [drawn], expected = sample(logits, [draw]), plain.choose(as_dict(logits[0]), draw)
    assert drawn.fault == expected.fault
    if drawn.token == expected.token:
        assert drawn.mirostat_mu == pytest.approx(expected.mirostat_mu, abs=1e-3)
        return
    assert drawn.token is not None
    assert not sampler.is_greedy
    assert is_close_to_a_border(logits[0], draw, drawn.token)


def is_close_to_a_border(logits: Tensor, draw: Draw, token: int) -> bool:
    """Whether a hair more or less of the random number, or of a threshold, gives this token."""
    near = {plain.choose(as_dict(logits), change(draw, hair)).token for hair in (-1e-5, 1e-5)}
    names = ("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "xtc_threshold")
    for name in (name for name in names if getattr(draw.sampler, name) != getattr(Sampler(), name)):
        for factor in (1 - 1e-5, 1 + 1e-5):
            fields = {key: getattr(draw.sampler, key) for key in draw.sampler.__struct_fields__}
            other = Sampler(**{**fields, name: min(fields[name] * factor, 1.0)})
            near |= {plain.choose(as_dict(logits), change(draw, hair, other)).token for hair in (-1e-5, 0, 1e-5)}
    return token in near


def change(draw: Draw, hair: float, sampler: Sampler | None = None) -> Draw:
    where = min(max(draw.uniform + hair, 0.0), math.nextafter(1, 0))
    mu = None if draw.mirostat_mu is None else draw.mirostat_mu + hair
    return draw_of(sampler or draw.sampler, where, xtc_uniform=draw.xtc_uniform, mirostat_mu=mu)


@settings(max_examples=thoroughness.count(6, 24), deadline=None)
@given(data=st.data())
def test_a_row_gets_the_same_bits_alone_and_in_any_batch(data: st.DataObject) -> None:
    """At the vocabulary of a real model and with two threads, where torch would split long rows."""
    count = data.draw(st.integers(2, 6))
    samplers = data.draw(st.lists(every_sampler(), min_size=count, max_size=count))
    uniforms = data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=count, max_size=count))
    scale = data.draw(st.sampled_from([0.5, 3.0]))
    logits = random_logits(count, 49_152, data.draw(st.integers(0, 100)), scale)
    draws = [draw_of(s, u, xtc_uniform=u, mirostat_mu=4.0) for s, u in zip(samplers, uniforms, strict=True)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = sample(logits, draws)
        alone = [sample(logits[row : row + 1], draws[row : row + 1])[0] for row in range(count)]
    finally:
        torch.set_num_threads(before)
    assert together == alone


HF = {
    "temperature": transformers.TemperatureLogitsWarper,
    "top_k": transformers.TopKLogitsWarper,
    "top_p": transformers.TopPLogitsWarper,
    "min_p": transformers.MinPLogitsWarper,
    "typical_p": transformers.TypicalLogitsWarper,
    "epsilon_cutoff": transformers.EpsilonLogitsWarper,
    "eta_cutoff": transformers.EtaLogitsWarper,
}
"""In the order in which Transformers runs them, which is ours."""


@pytest.mark.parametrize("parameters", TRUNCATIONS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_what_stays_is_what_transformers_keeps(parameters: dict[str, Any], seed: int) -> None:
    logits = random_logits(1, 300, seed)
    scores = logits.double()
    for name, warper in HF.items():
        if name in parameters:
            scores = warper(parameters[name])(torch.empty(1, 0, dtype=torch.int64), scores)
    theirs = {token: p for token, p in enumerate(scores.softmax(-1)[0].tolist()) if p}
    draw = draw_of(sampler_of(parameters))
    ours = exact(logits[0], draw)
    assert ours == pytest.approx(theirs, abs=1e-6)
    num_draws = thoroughness.count(500, 2000)
    draws = [draw_of(draw.sampler, (index + 0.5) / num_draws) for index in range(num_draws)]
    assert {drawn.token for drawn in sample(logits.expand(num_draws, -1), draws)} <= set(theirs)


@pytest.mark.parametrize("penalty", [0.6, 1.0, 1.2, 3.0])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    logits = random_logits(1, 50)
    processor = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    theirs = processor(torch.tensor([HISTORY]), logits.clone())
    assert torch.equal(adjusted(logits, [draw_of(Sampler(repetition_penalty=penalty))]), theirs)


def test_frequency_and_presence_count_what_was_generated() -> None:
    """HISTORY[5:] has 3 three times, 5 twice, and 9, 1 and 7 once."""
    logits = random_logits(1, 12)
    ours = adjusted(logits, [draw_of(Sampler(frequency_penalty=0.5, presence_penalty=1.0))])
    change = torch.zeros(12)
    change[[3, 5, 9, 1, 7]] = torch.tensor([2.5, 2.0, 1.5, 1.5, 1.5])
    assert torch.allclose(ours, logits - change)
    within = adjusted(logits, [draw_of(Sampler(frequency_penalty=0.5, penalty_window=10))])
    assert torch.allclose(within, logits - (change - (change > 0).float()))
    last = adjusted(logits, [draw_of(Sampler(presence_penalty=1.0, penalty_window=2))])
    assert torch.equal((logits - last).nonzero()[:, 1], torch.tensor([3, 7]))


@pytest.mark.parametrize(
    ("tokens", "parameters", "penalties"),
    [
        ([1, 2, 3, 4, 1, 2, 3], {}, {4: 1.5}),
        ([1, 2, 3, 4, 1, 2], {}, {3: 1.0}),
        ([1, 2, 3, 4, 1], {}, {}),
        ([1, 2, 3, 4, 1], {"dry_allowed_length": 1}, {2: 1.0}),
        ([9, 2, 3, 4, 1, 2, 3], {}, {4: 1.0}),
        ([1, 2, 3, 4, 1, 2, 3], {"dry_breakers": (1,)}, {4: 1.0}),
        ([1, 2, 3, 4, 1, 2, 3], {"dry_breakers": (3,)}, {}),
        ([1, 2, 3, 4, 1, 2, 3], {"dry_breakers": (4,)}, {}),
        ([1, 2, 3, 4, 1, 2, 3], {"penalty_window": 6}, {4: 1.0}),
        ([1, 2, 5, 1, 2, 6, 1, 2], {}, {5: 1.0, 6: 1.0}),
        ([7, 7, 7, 7], {}, {7: 1.5}),
        ([7] * 80, {"dry_base": 1.01}, {7: 1.01 ** (MAX_DRY_MATCH - 2)}),
        ([7], {}, {}),
        ([], {}, {}),
    ],
    ids=str,
)
def test_dry_punishes_what_goes_on_with_a_repetition(
    tokens: list[int], parameters: dict[str, Any], penalties: dict[int, float]
) -> None:
    sampler = Sampler(**{"dry_multiplier": 1.0, "dry_base": 1.5, **parameters})
    draw = Draw(sampler, history=array("i", tokens))
    change = torch.zeros(10)
    for token, penalty in penalties.items():
        change[token] = penalty
    assert torch.allclose(adjusted(torch.zeros(1, 10), [draw]), -change)
    assert plain.adjusted(dict.fromkeys(range(10), 0.0), draw) == pytest.approx(dict(enumerate((-change).tolist())))


@settings(max_examples=thoroughness.count(30, 300), deadline=None)
@given(
    tokens=st.lists(st.integers(0, 4), max_size=70),
    prompt=st.integers(0, 70),
    sampler=st.lists(st.sampled_from(ADJUSTMENTS[:6]), min_size=1, max_size=3).map(
        lambda some: sampler_of({key: value for part in some for key, value in part.items()})
    ),
)
def test_penalties_are_those_of_the_definition(tokens: list[int], prompt: int, sampler: Sampler) -> None:
    logits = random_logits(2, 6)
    draw = Draw(sampler, history=array("i", tokens), prompt_length=prompt)
    [_, ours] = adjusted(logits, [Draw(Sampler(banned_tokens=(0,))), draw]).tolist()
    assert ours == pytest.approx(list(plain.adjusted(as_dict(logits[1]), draw).values()), rel=1e-4)


def test_the_steps_come_in_their_order() -> None:
    """Bias and penalties before greedy; bias before penalties; temperature before the truncations."""
    logits = torch.tensor([[1.0, 0.9, 0.5]])
    history = {"history": array("i", [0])}
    assert sample(logits, [Draw(Sampler(logit_bias={2: 1.0}))]) == [Drawn(2)]
    assert sample(logits, [Draw(Sampler(repetition_penalty=1.5), **history)]) == [Drawn(1)]
    biased = adjusted(logits, [Draw(Sampler(repetition_penalty=2.0, logit_bias={0: 3.0}), **history)])
    assert biased[0].tolist() == pytest.approx([2.0, 0.9, 0.5])
    flat = Sampler(temperature=100.0, top_p=0.5)
    assert {drawn.token for drawn in sample(logits.expand(9, -1), [Draw(flat, i / 9) for i in range(9)])} == {0, 1}


def test_xtc_happens_as_often_as_it_should_and_leaves_the_last_of_the_top_choices() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    for chance, expected in ((0.29, {2, 3}), (0.3, {0, 1, 2, 3})):
        sampler = Sampler(1.0, xtc_probability=0.3, xtc_threshold=0.12)
        draws = [Draw(sampler, i / 100, xtc_uniform=chance) for i in range(100)]
        assert {drawn.token for drawn in sample(logits.expand(100, -1), draws)} == expected
    alone = [Draw(Sampler(1.0, xtc_probability=1.0, xtc_threshold=0.5), i / 100) for i in range(100)]
    assert len({drawn.token for drawn in sample(logits.expand(100, -1), alone)}) == 4, "one top choice stays"


def test_mirostat_keeps_the_surprise_near_its_target() -> None:
    logits = random_logits(1, 5000, scale=1.5)
    draw = Draw(Sampler(1.0, mirostat_tau=4.0))
    surprises = []
    for position in range(300):
        draw.uniform = uniform(stream_key(2), position)
        before = 8.0 if draw.mirostat_mu is None else draw.mirostat_mu
        [drawn] = sample(logits, [draw])
        assert drawn.mirostat_mu is not None
        surprises.append(4.0 + (before - drawn.mirostat_mu) / draw.sampler.mirostat_eta)
        draw.mirostat_mu = drawn.mirostat_mu
    assert sum(surprises[100:]) / 200 == pytest.approx(4.0, abs=0.3)


# Edges.


def test_a_row_of_which_all_but_one_are_banned() -> None:
    logits = random_logits(1, 60)
    for sampler in (Sampler(), Sampler(1.0), Sampler(1.0, typical_p=0.5), Sampler(1.0, mirostat_tau=2.0)):
        for only in (
            {"banned_tokens": tuple(range(1, 60))},
            {"allowed_tokens": (0,)},
            {"logit_bias": dict.fromkeys(range(1, 60), -INF)},
        ):
            fields = {key: getattr(sampler, key) for key in sampler.__struct_fields__}
            assert sample(logits, [Draw(Sampler(**{**fields, **only}), 0.999)])[0].token == 0


@pytest.mark.parametrize(
    "parameters",
    [
        {"banned_tokens": tuple(range(20))},
        {"allowed_tokens": (3,), "banned_tokens": (3,)},
        {"allowed_tokens": (3,), "logit_bias": {3: -INF}},
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draw_that_allows_nothing_says_so(parameters: dict[str, Any], temperature: float) -> None:
    draw, logits = Draw(Sampler(temperature, **parameters)), random_logits(1, 20)
    assert sample(logits, [draw])[0].fault == NOTHING_ALLOWED
    assert plain.choose(as_dict(logits[0]), draw).fault == NOTHING_ALLOWED


@pytest.mark.parametrize("parameters", [*TRUNCATIONS, *OTHERS, *ADJUSTMENTS], ids=str)
def test_a_row_without_a_distribution_is_a_fault_of_it_alone(parameters: dict[str, Any]) -> None:
    logits = random_logits(4, 300)
    draws = [draw_of(sampler_of(parameters), 0.3, mirostat_mu=3.0) for _ in range(4)]
    expected = sample(logits, draws)
    spot = parameters.get("allowed_tokens", [17])[-1]
    logits[1, spot], logits[2, spot] = math.nan, INF
    drawn = sample(logits, draws)
    assert [one.fault for one in drawn] == [None, NO_DISTRIBUTION, NO_DISTRIBUTION, None]
    assert (drawn[0], drawn[3]) == (expected[0], expected[3])


@pytest.mark.parametrize("parameters", [*TRUNCATIONS, *OTHERS[:3]], ids=str)
def test_tiny_temperatures_and_flat_rows(parameters: dict[str, Any]) -> None:
    sampler = sampler_of({**parameters, "temperature": 1e-30})
    logits = random_logits(1, 500)
    assert sample(logits, [Draw(sampler, 0.99)])[0].token == int(logits.argmax())
    drawn = sample(torch.zeros(1, 5000), [Draw(sampler_of(parameters), 0.99)])
    assert drawn[0].token is not None
