"""From logits to tokens, batched. What a row gets never depends on the other rows of the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pie_engine.sampling.adjust import adjusted
from pie_engine.sampling.draw import NO_DISTRIBUTION, NOTHING_ALLOWED, Draw, Drawn
from pie_engine.sampling.rows import likeliest, ranked, row_sums
from pie_engine.sampling.truncation import LEAST_VALUE, NEEDS_ENTROPY, STEPS, Candidates, next_mu, steps_of

_PREFIXES = (128, 2048)
"""How many of the likeliest tokens are looked at, one after the other, before a row's whole vocabulary is sorted: if
that is more than a quarter of it, all are."""
_MIN_TEMPERATURE = 1e-20
"""Smaller ones would be zero in fp32; the likeliest token has all of the probability long before."""


@torch.inference_mode()
def sample(logits: Tensor, draws: Sequence[Draw]) -> list[Drawn]:
    """One token for each row of `logits` [rows, vocab], as `draws[row]` asks. `logits` stay as they are.

    A row that has no distribution (a NaN, +inf, or nothing but -inf), or whose draw allows nothing, is a fault of its
    own. Single -inf entries are never chosen, and a +inf that may not be chosen does no harm.
    """
    assert len(logits) == len(draws)
    drawn = [Drawn() for _ in draws]
    rows: dict[bool, list[int]] = {False: [], True: []}
    for row, draw in enumerate(draws):
        rows[draw.is_adjusted].append(row)
    for is_adjusted, members in rows.items():
        if members:
            own = logits if len(members) == len(draws) else logits[members]
            own = adjusted(own, [draws[row] for row in members]) if is_adjusted else own
            for row, best in zip(members, _greedy(own), strict=True):
                drawn[row] = best
                # What a NaN has become of by then is not looked at: a row without a distribution stays one.
                if is_adjusted and best.fault is not None and _greedy(logits[row : row + 1])[0].fault is None:
                    best.fault = NOTHING_ALLOWED
            _draw_random(own, dict(enumerate(members)), draws, drawn)
    return drawn


def _greedy(logits: Tensor) -> list[Drawn]:
    highest, tokens = likeliest(logits)
    found = zip(highest.tolist(), tokens.tolist(), strict=True)
    return [Drawn(token) if math.isfinite(value) else Drawn(fault=NO_DISTRIBUTION) for value, token in found]


def _draw_random(logits: Tensor, rows: Mapping[int, int], draws: Sequence[Draw], drawn: list[Drawn]) -> None:
    """Replace the likeliest token by a random one where that is asked for. `logits[index]` is of row `rows[index]`.

    Rows that take the same steps go together, so none pays for what another one wants.
    """
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for index, row in rows.items():
        sampler = draws[row].sampler
        if not sampler.is_greedy and drawn[row].fault is None:
            top_k = sampler.top_k if sampler.top_k < logits.shape[1] else 0
            groups.setdefault((top_k, steps_of(draws[row])), []).append(index)
    for (top_k, steps), members in groups.items():
        asked = [draws[rows[index]] for index in members]
        for index, one in zip(members, _sample_rows(logits[members], top_k, steps, asked), strict=True):
            drawn[rows[index]] = one


def _sample_rows(logits: Tensor, top_k: int, steps: Sequence[str], draws: Sequence[Draw]) -> list[Drawn]:
    """Rows with the same `top_k` (0: the whole vocabulary) that take the same steps."""
    temperatures = torch.tensor([max(draw.sampler.temperature, _MIN_TEMPERATURE) for draw in draws]).unsqueeze(1)
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperatures
    if top_k:
        values, ids = ranked(scaled, top_k)
        return _draw(Candidates(values), ids, steps, draws)[0]
    weights = scaled.exp()
    totals = row_sums(weights).double()
    energies = row_sums(weights * scaled.clamp(min=LEAST_VALUE)).double() if NEEDS_ENTROPY & set(steps) else totals
    drawn = [Drawn() for _ in draws]
    pending = list(range(len(draws)))
    vocab = logits.shape[1]
    for size in (*(size for size in _PREFIXES if 4 * size < vocab), vocab):
        values, ids = ranked(scaled, size)
        left = Candidates(values) if size == vocab else Candidates(values, totals, energies)
        found, is_decided = _draw(left, ids, steps, [draws[row] for row in pending])
        for row, one in zip(pending, found, strict=True):
            drawn[row] = one
        again = [index for index, decided in enumerate(is_decided) if not decided]
        if not again:
            break
        pending = [pending[index] for index in again]
        scaled, totals, energies = scaled[again], totals[again], energies[again]
    return drawn


def _draw(left: Candidates, ids: Tensor, steps: Sequence[str], draws: Sequence[Draw]) -> tuple[list[Drawn], list[bool]]:
    """Take the steps, then draw by inverse CDF; also whether the candidates [rows, n] sufficed to decide."""
    for name in steps:
        parameters = torch.tensor([getattr(draw.sampler, name) for draw in draws], dtype=torch.float64)
        STEPS[name].take(left, parameters.unsqueeze(1), draws)
    uniforms = torch.tensor([draw.uniform for draw in draws], dtype=torch.float64).unsqueeze(1)
    mass, cumulative = left.mass, left.weights.cumsum(-1)
    index = torch.searchsorted(cumulative, uniforms * mass, right=True)
    num_candidates = cumulative.shape[1]
    is_decided = left.is_decided & ((index < num_candidates) | ~left.has_tail)
    last = num_candidates - 1 - (left.weights > 0).flip(-1).int().argmax(-1, keepdim=True)
    index = torch.minimum(index, last)
    tokens = ids.gather(-1, index).squeeze(-1).tolist()
    drawn = [Drawn(token) for token in tokens]
    if "mirostat_tau" in steps:
        probabilities = (left.weights.gather(-1, index) / mass).squeeze(-1).tolist()
        for one, draw, probability in zip(drawn, draws, probabilities, strict=True):
            one.mirostat_mu = next_mu(draw, probability)
    return drawn, is_decided.squeeze(-1).tolist()
