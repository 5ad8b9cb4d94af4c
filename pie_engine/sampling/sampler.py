"""From logits to tokens, batched. What a row gets never depends on the other rows of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pie_engine.protocol.sampling import Sampler, TopToken

_PREFIX = 128
"""How many of the likeliest tokens are looked at before a row's whole vocabulary is sorted."""
_BLOCK = 128
_MIN_BLOCKED_VOCAB = 8192
_MIN_TEMPERATURE = 1e-20
"""Smaller ones would be zero in fp32; the likeliest token has all of the probability long before."""


@torch.inference_mode()
def sample(logits: Tensor, samplers: Sequence[Sampler], uniforms: Sequence[float]) -> list[int | None]:
    """One token for each row of `logits` [rows, vocab], by `samplers[row]` and the draw `uniforms[row]`.

    None for a row that has no distribution: a NaN, +inf, or nothing but -inf. Single -inf entries are never chosen.
    """
    assert len(logits) == len(samplers) == len(uniforms)
    highest, likeliest = _likeliest(logits)
    found = zip(highest.tolist(), likeliest.tolist(), strict=True)
    tokens: list[int | None] = [token if math.isfinite(value) else None for value, token in found]
    groups: dict[int, list[int]] = {}
    for row, sampler in enumerate(samplers):
        if not sampler.is_greedy and tokens[row] is not None:
            groups.setdefault(min(sampler.top_k, logits.shape[1]), []).append(row)
    for top_k, rows in groups.items():
        drawn = _sample_rows(logits[rows], top_k, [samplers[row] for row in rows], [uniforms[row] for row in rows])
        for row, token in zip(rows, drawn, strict=True):
            tokens[row] = token
    return tokens


@torch.inference_mode()
def logprob(logits: Tensor, token: int) -> float:
    """Log-probability of `token` under one row of logits [vocab], before temperature and filters."""
    return float(logits[token] - logits.logsumexp(-1))


@torch.inference_mode()
def top_tokens(logits: Tensor, count: int) -> list[TopToken]:
    """The `count` likeliest tokens of one row [vocab], likeliest first."""
    values, ids = logits.topk(min(count, len(logits)))
    logprobs = (values - logits.logsumexp(-1)).tolist()
    return [TopToken(token, value) for token, value in zip(ids.tolist(), logprobs, strict=True)]


def _likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Value and index of each row's maximum, NaN if there is one.

    In two levels, because a plain maximum is vectorized on the CPU and one with its index is not: 8 times faster
    where there is much to look at. The choice depends on the vocabulary alone, never on the number of rows.
    """
    rows, vocab = logits.shape
    if vocab % _BLOCK or vocab < _MIN_BLOCKED_VOCAB:
        highest, index = logits.max(-1)
        return highest, index
    blocks = logits.reshape(rows, vocab // _BLOCK, _BLOCK)
    highest, block = blocks.amax(-1).max(-1)
    return highest, block * _BLOCK + blocks[torch.arange(rows), block].argmax(-1)


def _sample_rows(logits: Tensor, top_k: int, samplers: list[Sampler], uniforms: list[float]) -> list[int]:
    """Rows with the same `top_k` (0: the whole vocabulary)."""
    temperatures = torch.tensor([max(sampler.temperature, _MIN_TEMPERATURE) for sampler in samplers]).unsqueeze(1)
    top_p = torch.tensor([sampler.top_p for sampler in samplers], dtype=torch.float64).unsqueeze(1)
    draws = torch.tensor(uniforms, dtype=torch.float64).unsqueeze(1)
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperatures
    if top_k:
        values, ids = scaled.topk(top_k)
        return _draw(values, ids, values.double().exp().sum(-1, keepdim=True), top_p, draws)[0]
    totals = scaled.exp().sum(-1, keepdim=True).double()
    values, ids = scaled.topk(min(_PREFIX, scaled.shape[1]))
    tokens, is_decided = _draw(values, ids, totals, top_p, draws)
    for row, decided in enumerate(is_decided):
        if not decided:
            one = slice(row, row + 1)
            values, ids = scaled[one].sort(descending=True)
            tokens[row] = _draw(values, ids, totals[one], top_p[one], draws[one])[0][0]
    return tokens


def _draw(values: Tensor, ids: Tensor, totals: Tensor, top_p: Tensor, draws: Tensor) -> tuple[list[int], list[bool]]:
    """Inverse CDF over the likeliest tokens, and whether they sufficed to decide.

    `values` [rows, n] are sorted logits and `totals` [rows, 1] the weight of the whole distribution. The nucleus is
    the shortest prefix whose probability reaches `top_p`; the draw is then scaled to what the nucleus holds.
    """
    cumulative = values.double().exp().cumsum(-1)
    limits = top_p * totals
    last = (cumulative < limits).sum(-1, keepdim=True)
    is_inside = last < values.shape[1]
    last = last.clamp(max=values.shape[1] - 1)
    masses = torch.where(top_p < 1, torch.where(is_inside, cumulative.gather(-1, last), limits), totals)
    index = torch.searchsorted(cumulative, draws * masses, right=True)
    is_decided = (index < values.shape[1]) & (is_inside | (top_p >= 1))
    num_possible = (values > -torch.inf).sum(-1, keepdim=True)
    index = torch.minimum(torch.minimum(index, last), num_possible - 1)
    return ids.gather(-1, index).squeeze(-1).tolist(), is_decided.squeeze(-1).tolist()
