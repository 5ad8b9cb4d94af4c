"""From logits to tokens, batched. What a row gets never depends on the other rows of the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pie_engine.errors import ErrorInfo
from pie_engine.protocol.sampling import TopToken
from pie_engine.sampling.adjust import adjusted, is_adjusted
from pie_engine.sampling.draw import NO_DISTRIBUTION, NOTHING_ALLOWED, Draw, Drawn

_PREFIX = 128
"""How many of the likeliest tokens are looked at before a row's whole vocabulary is sorted."""
_BLOCK = 128
_MIN_BLOCKED_VOCAB = 8192
_MIN_TEMPERATURE = 1e-20
"""Smaller ones would be zero in fp32; the likeliest token has all of the probability long before."""


@torch.inference_mode()
def sample(logits: Tensor, draws: Sequence[Draw]) -> list[Drawn]:
    """One token for each row of `logits` [rows, vocab], as `draws[row]` asks. `logits` stay as they are.

    A row that has no distribution (a NaN, +inf, or nothing but -inf), or whose draw allows nothing, is a fault of its
    own. Single -inf entries are never chosen.
    """
    assert len(logits) == len(draws)
    drawn = _greedy(logits, NO_DISTRIBUTION)
    changed = [row for row, draw in enumerate(draws) if is_adjusted(draw) and drawn[row].fault is None]
    if changed:
        own = adjusted(logits[changed], [draws[row] for row in changed])
        for row, best in zip(changed, _greedy(own, NOTHING_ALLOWED), strict=True):
            drawn[row] = best
        _draw_random(own, dict(enumerate(changed)), draws, drawn)
    _draw_random(logits, {row: row for row in range(len(draws)) if row not in changed}, draws, drawn)
    return drawn


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


def _greedy(logits: Tensor, fault: ErrorInfo) -> list[Drawn]:
    highest, likeliest = _likeliest(logits)
    found = zip(highest.tolist(), likeliest.tolist(), strict=True)
    return [Drawn(token) if math.isfinite(value) else Drawn(fault=fault) for value, token in found]


def _draw_random(logits: Tensor, rows: Mapping[int, int], draws: Sequence[Draw], drawn: list[Drawn]) -> None:
    """Replace the likeliest token by a random one where that is asked for. `logits[index]` is of row `rows[index]`."""
    groups: dict[int, list[int]] = {}
    for index, row in rows.items():
        sampler = draws[row].sampler
        if not sampler.is_greedy and drawn[row].fault is None:
            groups.setdefault(min(sampler.top_k, logits.shape[1]), []).append(index)
    for top_k, members in groups.items():
        asked = [draws[rows[index]] for index in members]
        tokens = _sample_rows(logits[members], top_k, asked)
        for index, token in zip(members, tokens, strict=True):
            drawn[rows[index]].token = token


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


def _sample_rows(logits: Tensor, top_k: int, asked: Sequence[Draw]) -> list[int]:
    """Rows with the same `top_k` (0: the whole vocabulary)."""
    samplers = [draw.sampler for draw in asked]
    temperatures = torch.tensor([max(sampler.temperature, _MIN_TEMPERATURE) for sampler in samplers]).unsqueeze(1)
    top_p = torch.tensor([sampler.top_p for sampler in samplers], dtype=torch.float64).unsqueeze(1)
    draws = torch.tensor([draw.uniform for draw in asked], dtype=torch.float64).unsqueeze(1)
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperatures
    if top_k:
        values, ids = scaled.topk(top_k)
        return _draw(values, ids, values.double().exp().sum(-1, keepdim=True), top_p, draws)[0]
    totals = _row_sums(scaled.exp()).double()
    values, ids = scaled.topk(min(_PREFIX, scaled.shape[1]))
    tokens, is_decided = _draw(values, ids, totals, top_p, draws)
    for row, decided in enumerate(is_decided):
        if not decided:
            one = slice(row, row + 1)
            values, ids = scaled[one].sort(descending=True)
            tokens[row] = _draw(values, ids, totals[one], top_p[one], draws[one])[0][0]
    return tokens


def _row_sums(values: Tensor) -> Tensor:
    """Sum of each row [rows, vocab] → [rows, 1], the same bits alone and in a batch.

    A plain sum of a single long row is split among the threads, and rounds otherwise than that of many rows.
    """
    rows, vocab = values.shape
    whole = vocab - vocab % _BLOCK
    sums = values[:, :whole].reshape(rows, whole // _BLOCK, _BLOCK).sum(-1).sum(-1, keepdim=True)
    return sums if whole == vocab else sums + values[:, whole:].sum(-1, keepdim=True)


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
