"""The compiled choice of tokens: it draws what the sampler of NumPy draws, and a row gets the same in any batch."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from pie_engine.model.compiled_choice import Choice
from pie_engine.protocol.sampling import GREEDY, Sampler
from pie_engine.sampling.draw import NO_DISTRIBUTION, NOTHING_ALLOWED, Draw
from pie_engine.sampling.random import stream_key, uniform
from pie_engine.sampling.sampler import sample
from tests import thoroughness

NAN, INF = float("nan"), float("inf")
SAMPLERS = [
    Sampler(0.8),
    Sampler(1.5, top_k=5),
    Sampler(1.0, top_p=0.6),
    Sampler(0.8, top_k=7, top_p=0.8),
    Sampler(1.2, min_p=0.05),
    Sampler(3.0, min_p=1e-6),
    Sampler(0.9, top_k=40, top_p=0.95, min_p=0.02),
    Sampler(100.0, top_p=0.99),
    Sampler(1e-30),
]


def random_logits(rows: int, vocab: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def tokens_of(logits: Tensor, draws: list[Draw]) -> list[int | None]:
    return [one.token for one in sample(logits, draws, Choice(logits.shape[1]))]


@pytest.mark.parametrize("vocab", [5, 333, 4096, 12_801])
def test_it_draws_what_the_sampler_of_numpy_draws(vocab: int) -> None:
    num_draws = thoroughness.count(10, 100)
    for number, sampler in enumerate([GREEDY, *SAMPLERS]):
        logits = random_logits(num_draws, vocab, number, scale=1.0 + number)
        draws = [Draw(sampler, uniform(number, position)) for position in range(num_draws)]
        assert tokens_of(logits, draws) == [one.token for one in sample(logits, draws)], sampler


def test_other_samplers_draw_as_without_it() -> None:
    logits = random_logits(4, 500)
    draws = [
        Draw(Sampler(1.0, typical_p=0.5), 0.3),
        Draw(Sampler(1.0, xtc_probability=0.5), 0.9, xtc_uniform=0.7),
        Draw(GREEDY, 0.3),
        Draw(Sampler(1.0, mirostat_tau=3.0), 0.6),
    ]
    assert sample(logits, draws, Choice(500)) == sample(logits, draws)


@pytest.mark.parametrize(
    "sampler", [Sampler(1.0), Sampler(0.7, top_k=20, top_p=0.9), Sampler(1.2, min_p=0.02)], ids=str
)
def test_frequencies_follow_the_exact_distribution(sampler: Sampler) -> None:
    vocab, num_draws = 600, thoroughness.count(3000, 20_000)
    logits = random_logits(1, vocab, seed=3)
    key = stream_key(1)
    draws = [Draw(sampler, uniform(key, position)) for position in range(num_draws)]
    counts = Counter(tokens_of(logits.expand(num_draws, -1), draws))
    probabilities = (logits[0].double() / sampler.temperature).softmax(-1)
    values, order = probabilities.sort(descending=True)
    if sampler.top_k:
        values[sampler.top_k :] = 0
        values /= values.sum()
    values[(values.cumsum(0) - values) >= sampler.top_p] = 0
    values[values < sampler.min_p * values[0]] = 0
    expected = dict(zip(order.tolist(), (values / values.sum() * num_draws).tolist(), strict=True))
    assert all(expected[token] > 0 for token in counts if token is not None)
    big = [token for token, number in expected.items() if number >= 10]
    statistic = sum((counts[token] - expected[token]) ** 2 / expected[token] for token in big)
    assert (statistic - len(big) + 1) / math.sqrt(2 * (len(big) - 1)) < 4


def test_a_row_gets_the_same_alone_and_in_any_batch() -> None:
    for vocab in (50, 1003):
        logits = random_logits(30, vocab)
        draws = [Draw([GREEDY, *SAMPLERS][row % 10], row / 30) for row in range(30)]
        alone = [tokens_of(logits[row : row + 1], [draws[row]])[0] for row in range(30)]
        assert tokens_of(logits, draws) == alone
        assert tokens_of(logits.flip(0), draws[::-1]) == alone[::-1]


def test_draws_and_nuclei_exactly_on_a_border() -> None:
    """Equal tokens come in their order: each has a half-open part of [0, 1), and half of them are a nucleus of 0.5."""
    for vocab in (4, 256):
        flat, places = torch.zeros(vocab, vocab), [token / vocab for token in range(vocab)]
        assert tokens_of(flat, [Draw(Sampler(1.0), place) for place in places]) == list(range(vocab))
        half = tokens_of(flat, [Draw(Sampler(1.0, top_p=0.5), place) for place in places])
        assert set(half) == set(range(vocab // 2))
        assert tokens_of(flat, [Draw(Sampler(1.0, top_k=3), place) for place in places])[-1] == 2
        assert tokens_of(flat[:1], [Draw(GREEDY)]) == [0]


def test_of_equal_logits_a_top_k_has_the_first() -> None:
    logits = torch.full((20, 333), -1e-3)
    logits[:, 233:] = 0.0
    drawn = tokens_of(logits, [Draw(Sampler(1.0, top_k=20), (row + 0.5) / 20) for row in range(20)])
    assert drawn == list(range(233, 253))
    assert tokens_of(logits, [Draw(Sampler(1.0, top_k=101), math.nextafter(1, 0))] * 20) == [0] * 20


@pytest.mark.parametrize("scale", [0.001, 0.01, 1.0])
def test_flat_distributions_reach_the_whole_vocabulary(scale: float) -> None:
    logits = random_logits(1, 5000, scale=scale)
    order = logits[0].argsort(descending=True, stable=True).tolist()
    assert tokens_of(logits, [Draw(Sampler(1.0), 0.0)]) == order[:1]
    assert tokens_of(logits, [Draw(Sampler(1.0), math.nextafter(1, 0))]) == order[-1:]
    assert tokens_of(logits, [Draw(Sampler(1.0, top_k=4000), math.nextafter(1, 0))]) == [order[3999]]


@pytest.mark.parametrize("scale", [1e-6, 0.001, 0.1])
def test_any_top_k_of_flat_distributions(scale: float) -> None:
    """A fixed weight from which on tokens are looked at leaves all of them; tokens are found by their number then."""
    logits = random_logits(6, 5000, scale=scale)
    for top_k in (1, 30, 700, 2000, 4999, 6000):
        for top_p in (1.0, 0.7):
            draws = [Draw(Sampler(1.0, top_k=top_k, top_p=top_p), (row + 0.3) / 6) for row in range(6)]
            assert tokens_of(logits, draws) == [one.token for one in sample(logits, draws)], (top_k, top_p)


def test_one_choice_for_steps_with_other_rows() -> None:
    """What it keeps of the last rows is not that of the next ones."""
    logits, choice = random_logits(6, 400), Choice(400)
    mask = b"\x0f" * 50
    steps = [
        [Draw(GREEDY)] * 6,
        [Draw(Sampler(1.0), row / 6) for row in range(6)],
        [Draw(Sampler(1.0), (row + 0.5) / 6) for row in range(6)],
        [Draw(Sampler(1.0, top_k=3), row / 6, mask if row % 2 else None) for row in range(6)],
        [Draw(Sampler(1.0, top_k=3), row / 6) for row in range(6)],
        [Draw(SAMPLERS[row], 0.4) for row in range(3)],
        [Draw(SAMPLERS[row], 0.4) for row in (2, 1, 0)],
        [Draw(GREEDY)] * 6,
    ]
    for draws in steps:
        rows = logits[: len(draws)]
        assert sample(rows, draws, choice) == sample(rows, draws, Choice(400))


@pytest.mark.parametrize("sampler", [GREEDY, *SAMPLERS], ids=str)
def test_what_is_impossible_is_never_drawn(sampler: Sampler) -> None:
    logits = torch.full((3, 301), -INF)
    logits[:, [7, 300]] = torch.tensor([1.0, 2.0])
    draws = [Draw(sampler, place) for place in (0.0, 0.5, math.nextafter(1, 0))]
    assert set(tokens_of(logits, draws)) <= {7, 300}


@pytest.mark.parametrize("vocab", [300, 321])
def test_a_row_without_a_distribution_is_a_fault_and_the_others_are_not(vocab: int) -> None:
    for sampler in (GREEDY, Sampler(0.8), Sampler(1.0, typical_p=0.5)):
        logits = random_logits(7, vocab)
        draws = [Draw(sampler, 0.4)] * 7
        expected = tokens_of(logits, draws)
        logits[1, 5], logits[2, 5], logits[4], logits[5, vocab - 1] = NAN, INF, -INF, NAN
        drawn = sample(logits, draws, Choice(vocab))
        assert [one.fault for one in drawn] == [
            None, NO_DISTRIBUTION, NO_DISTRIBUTION, None, NO_DISTRIBUTION, NO_DISTRIBUTION, None,
        ]  # fmt: skip
        assert [drawn[row].token for row in (0, 3, 6)] == [expected[row] for row in (0, 3, 6)]


@pytest.mark.parametrize("vocab", [5, 301, 4096])
def test_masks_leave_what_they_leave_without_it(vocab: int) -> None:
    logits = random_logits(20, vocab)
    logits[3, vocab // 2], logits[4, vocab // 2], logits[5], logits[6, vocab - 1] = NAN, INF, -INF, NAN
    for share in (0.02, 0.5, 1.0):
        allowed = torch.rand(20, vocab, generator=torch.Generator().manual_seed(1)) < share
        lengths = [vocab // 8 + 1, vocab // 8 + 9, vocab // 16]
        masks = [
            np.packbits(row.numpy(), bitorder="little").tobytes().ljust(99, b"\xff")[: lengths[number % 3]]
            for number, row in enumerate(allowed)
        ]
        samplers = [GREEDY, *SAMPLERS, Sampler(1.0, typical_p=0.5), Sampler(0.5, banned_tokens=(1, 2))]
        draws = [
            Draw(samplers[row % len(samplers)], row / 20, None if row % 5 == 0 else mask)
            for row, mask in enumerate(masks)
        ]
        assert sample(logits, draws, Choice(vocab)) == sample(logits, draws), share


def test_masks_and_rows_that_allow_nothing() -> None:
    logits = random_logits(4, 40)
    draws = [
        Draw(GREEDY, mask=b"\x10"),
        Draw(Sampler(1.0), 0.5, mask=b"\0" * 5),
        Draw(Sampler(1.0), 0.5, mask=b"\0\x01"),
        Draw(Sampler(1.0), 0.5),
    ]
    drawn = sample(logits, draws, Choice(40))
    assert [one.token for one in drawn[:3]] == [4, None, 8]
    assert drawn[1].fault == NOTHING_ALLOWED
    assert drawn[3] == sample(logits, draws)[3]


def test_rows_may_lie_apart_and_there_may_be_none() -> None:
    wide = random_logits(6, 48)
    draws = [Draw(Sampler(1.0), row / 6) for row in range(6)]
    narrow = wide[:, :41]
    assert tokens_of(narrow, draws) == tokens_of(narrow.contiguous(), draws)
    assert sample(wide[:0], [], Choice(48)) == []
