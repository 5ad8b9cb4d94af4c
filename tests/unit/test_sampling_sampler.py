"""Sampling follows the exact distribution, and what a row gets depends on the row alone."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pie_engine.protocol.sampling import GREEDY, Sampler
from pie_engine.sampling import sampler as sampling
from pie_engine.sampling.draw import NO_DISTRIBUTION, NOTHING_ALLOWED, Draw
from pie_engine.sampling.probes import entropy, logprobs, top_tokens
from pie_engine.sampling.random import stream_key, uniform
from pie_engine.sampling.rows import row_sums
from tests import thoroughness

NAN, INF = float("nan"), float("inf")
SAMPLERS = [
    Sampler(1.0),
    Sampler(0.7),
    Sampler(1.5, top_k=5),
    Sampler(1.0, top_p=0.6),
    Sampler(0.8, top_k=7, top_p=0.8),
    Sampler(2.0, top_k=1),
    Sampler(1.0, top_p=0.0),
    Sampler(1.3, top_k=10_000),
]


def random_logits(rows: int, vocab: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def sample(logits: Tensor, samplers: list[Sampler], uniforms: list[float]) -> list[int | None]:
    draws = [Draw(sampler, draw) for sampler, draw in zip(samplers, uniforms, strict=True)]
    return [drawn.token for drawn in sampling.sample(logits, draws)]


def exact(logits: Tensor, sampler: Sampler) -> dict[int, float]:
    """The distribution by its definition, in plain Python."""
    order = sorted(range(len(logits)), key=lambda token: -float(logits[token]))
    if sampler.top_k:
        order = order[: sampler.top_k]
    weights = [math.exp((float(logits[token]) - float(logits[order[0]])) / sampler.temperature) for token in order]
    kept, total = 1, sum(weights)
    while kept < len(weights) and sum(weights[:kept]) < sampler.top_p * total:
        kept += 1
    if sampler.top_p == 1:
        kept = len(weights)
    mass = sum(weights[:kept])
    return {token: weight / mass for token, weight in zip(order[:kept], weights[:kept], strict=True)}


@pytest.mark.parametrize("vocab", [12, 600])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_frequencies_follow_the_exact_distribution(sampler: Sampler, vocab: int) -> None:
    logits = random_logits(1, vocab, seed=3)
    num_draws = thoroughness.count(2000, 6000)
    key = stream_key(1)
    uniforms = [uniform(key, position) for position in range(num_draws)]
    tokens = sample(logits.expand(num_draws, -1), [sampler] * num_draws, uniforms)
    expected = exact(logits[0], sampler)
    counts = Counter(tokens)
    assert set(counts) <= set(expected)
    big = [token for token, probability in expected.items() if probability * num_draws >= 10]
    statistic = sum((counts[t] - expected[t] * num_draws) ** 2 / (expected[t] * num_draws) for t in big)
    freedom = max(len(big) - 1, 1)
    assert (statistic - freedom) / math.sqrt(2 * freedom) < 4


@settings(max_examples=thoroughness.count(60, 400), deadline=None)
@given(seed=st.integers(0, 1000), sampler=st.sampled_from(SAMPLERS), draw=st.floats(0, 1, exclude_max=True))
def test_a_draw_is_the_inverse_of_the_cdf(seed: int, sampler: Sampler, draw: float) -> None:
    logits = random_logits(1, 200, seed)
    [token] = sample(logits, [sampler], [draw])
    assert token is not None
    below = 0.0
    for candidate, probability in exact(logits[0], sampler).items():
        if candidate == token:
            assert below - 1e-5 <= draw <= below + probability + 1e-5
            return
        below += probability
    pytest.fail(f"{token} has no probability")


@settings(max_examples=thoroughness.count(20, 100), deadline=None)
@given(data=st.data())
def test_a_row_gets_the_same_alone_and_in_any_batch(data: st.DataObject) -> None:
    num_rows = data.draw(st.integers(2, 9))
    samplers = data.draw(st.lists(st.sampled_from([GREEDY, *SAMPLERS]), min_size=num_rows, max_size=num_rows))
    uniforms = data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=num_rows, max_size=num_rows))
    logits = random_logits(num_rows, data.draw(st.sampled_from([50, 1000])), data.draw(st.integers(0, 100)))
    together = sample(logits, samplers, uniforms)
    alone = [
        sample(logits[row : row + 1], [samplers[row]], [uniforms[row]])[0]
        for row in range(num_rows)
    ]  # fmt: skip
    assert together == alone


def test_draws_and_nuclei_exactly_on_a_border() -> None:
    """Four equal tokens: each has a half-open quarter of [0, 1), and two of them are a nucleus of 0.5."""
    logits, quarters = torch.zeros(4, 4), [0.0, 0.25, 0.5, 0.75]
    assert len(set(sample(logits, [Sampler(1.0)] * 4, quarters))) == 4
    assert len(set(sample(logits, [Sampler(1.0, top_p=0.5)] * 4, [*quarters[:3], 0.999]))) == 2
    assert len(set(sample(logits, [Sampler(1.0, top_p=0.25)] * 4, [*quarters[:3], 0.999]))) == 1


def test_flat_distributions_reach_the_whole_vocabulary() -> None:
    """Where the likeliest tokens do not decide, the vocabulary is sorted."""
    logits = random_logits(1, 5000, scale=0.01)
    order = logits[0].argsort(descending=True).tolist()
    for sampler in (Sampler(1.0), Sampler(1.0, top_p=0.9)):
        for draw in (0.0, 0.01, 0.3, 0.8, 0.999999):
            [token] = sample(logits, [sampler], [draw])
            expected_rank = draw * 5000 * sampler.top_p
            assert abs(order.index(token) - expected_rank) < 60
    [last] = sample(logits, [Sampler(1.0)], [math.nextafter(1, 0)])
    assert last == order[-1]


@pytest.mark.parametrize("vocab", [100, 128, 12800])
def test_greedy_takes_the_likeliest(vocab: int) -> None:
    logits = random_logits(5, vocab)
    assert sample(logits, [GREEDY] * 5, [0.9] * 5) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("vocab", [100, 12800])
def test_ties_are_broken_alike_alone_and_in_a_batch(vocab: int) -> None:
    """Logits in bf16 are often equal."""
    logits = random_logits(7, vocab).bfloat16().float().clamp(max=1.0)
    alone = [sample(logits[row : row + 1], [GREEDY], [0.0])[0] for row in range(7)]
    assert sample(logits, [GREEDY] * 7, [0.0] * 7) == alone


def test_tiny_temperatures_are_greedy() -> None:
    logits = random_logits(1, 100, scale=100)
    for temperature in (1e-6, 1e-30, 1e-300):
        assert sample(logits, [Sampler(temperature)], [0.999]) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("sampler", [GREEDY, *SAMPLERS], ids=str)
def test_masked_tokens_are_never_drawn(sampler: Sampler) -> None:
    logits = torch.full((1, 300), -INF)
    logits[0, [7, 250]] = torch.tensor([1.0, 2.0])
    for draw in (0.0, 0.5, math.nextafter(1, 0)):
        assert set(sample(logits, [sampler], [draw])) <= {7, 250}


@pytest.mark.parametrize("vocab", [300, 12800])
@pytest.mark.parametrize("sampler", [GREEDY, *SAMPLERS], ids=str)
def test_a_row_without_a_distribution_is_none_and_the_others_are_not(sampler: Sampler, vocab: int) -> None:
    logits = random_logits(6, vocab)
    expected = sample(logits, [sampler] * 6, [0.4] * 6)
    logits[1, 5], logits[2, 5], logits[4] = NAN, INF, -INF
    tokens = sample(logits, [sampler] * 6, [0.4] * 6)
    assert tokens == [expected[0], None, None, expected[3], None, expected[5]]


@pytest.mark.parametrize("vocab", [10, 65536])
def test_no_rows(vocab: int) -> None:
    assert sample(torch.empty(0, vocab), [], []) == []


def test_logprobs_are_before_temperature_and_filters() -> None:
    logits = random_logits(1, 100)[0]
    reference = logits.log_softmax(-1)
    assert logprobs(logits, [17, 3]) == pytest.approx(reference[[17, 3]].tolist(), abs=1e-5)
    top = top_tokens(logits, 5)
    assert [entry.token for entry in top] == reference.topk(5).indices.tolist()
    assert [entry.logprob for entry in top] == pytest.approx(reference.topk(5).values.tolist(), abs=1e-5)
    assert len(top_tokens(logits, 1000)) == 100
    assert entropy(logits) == pytest.approx(float(-(reference.exp() * reference).sum()), abs=1e-5)
    assert entropy(torch.tensor([0.0, 0.0, -INF])) == pytest.approx(math.log(2))


@pytest.mark.parametrize("vocab", [300, 301, 12800])
@pytest.mark.parametrize("sampler", [GREEDY, *SAMPLERS], ids=str)
def test_a_mask_is_the_same_as_logits_of_minus_infinity(sampler: Sampler, vocab: int) -> None:
    logits = random_logits(6, vocab)
    allowed = torch.rand(6, vocab, generator=torch.Generator().manual_seed(1)) < 0.3
    masks = [
        sum(1 << token for token in row.nonzero()[:, 0].tolist()).to_bytes(vocab // 8 + 2, "little") for row in allowed
    ]
    draws = [Draw(sampler, row / 6, None if row == 2 else mask) for row, mask in enumerate(masks)]
    allowed[2] = True
    expected = sample(logits.masked_fill(~allowed, -INF), [sampler] * 6, [row / 6 for row in range(6)])
    before = logits.clone()
    assert [drawn.token for drawn in sampling.sample(logits, draws)] == expected
    assert torch.equal(logits, before)


def test_a_row_that_cannot_be_drawn_says_why() -> None:
    logits = random_logits(5, 40)
    logits[1, 3] = NAN
    masks = [b"\xff" * 5, b"\xff" * 5, b"\0" * 5, b"", None]
    drawn = sampling.sample(logits, [Draw(GREEDY, mask=mask) for mask in masks])
    assert [one.fault for one in drawn] == [None, NO_DISTRIBUTION, NOTHING_ALLOWED, NOTHING_ALLOWED, None]
    assert [one.token is None for one in drawn] == [False, True, True, True, False]
    hidden = sampling.sample(logits[1:2], [Draw(GREEDY, mask=b"\x01" * 5)])
    assert hidden[0].fault == NO_DISTRIBUTION, "a mask does not hide that the model failed"


@pytest.mark.parametrize("vocab", [49_152, 50_257])
def test_large_vocabularies_give_a_row_the_same_bits_alone_and_in_a_batch(vocab: int) -> None:
    values = np.random.default_rng(0).random((20, vocab), np.float32)
    alone = np.concatenate([row_sums(values[row : row + 1]) for row in range(20)])
    assert np.array_equal(row_sums(values), alone)
    assert alone[:, 0] == pytest.approx(values.sum(-1, dtype=np.float64), rel=1e-5)


def test_an_infinity_that_may_not_be_chosen_does_no_harm_and_a_nan_does() -> None:
    logits = random_logits(1, 30)
    draw = Draw(Sampler(allowed_tokens=(1, 2, 3)))
    best = sampling.sample(logits, [draw])
    logits[0, 17] = INF
    assert sampling.sample(logits, [draw]) == best
    logits[0, 17] = NAN
    assert sampling.sample(logits, [draw])[0].fault == NO_DISTRIBUTION
