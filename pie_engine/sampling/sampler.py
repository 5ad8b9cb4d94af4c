"""From logits to tokens, batched. What a row gets never depends on the other rows of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor

from pie_engine.protocol.sampling import Sampler
from pie_engine.sampling.adjust import adjusted
from pie_engine.sampling.draw import NO_DISTRIBUTION, NOTHING_ALLOWED, Draw, Drawn
from pie_engine.sampling.rows import likeliest, ranked, row_sums
from pie_engine.sampling.truncation import LEAST_VALUE, NEEDS_ENTROPY, STEPS, Candidates, next_mu, steps_of

Array = np.ndarray


class Choose(Protocol):
    """What draws a token of each row as `_sample_rows` does, up to rounding, and faster."""

    def __call__(
        self,
        logits: Array,
        samplers: Sequence[Sampler],
        uniforms: Sequence[float],
        masks: Sequence[bytes | None] = (),
    ) -> list[int]:
        """A token for each row of `logits` [rows, vocab], or the number of one of `FAULTS`; the likeliest where a
        sampler has no `settings`. `masks`: of each row, or none at all. It applies these, and nothing else that comes
        before the temperature."""


FAULTS = {-1: NO_DISTRIBUTION, -2: NOTHING_ALLOWED}
_PREFIXES = (128, 2048)
"""How many of the likeliest tokens are looked at, one after the other, before a row's whole vocabulary is sorted: if
that is more than a quarter of it, all are."""
_MIN_TEMPERATURE = 1e-20
"""Smaller ones would be zero in fp32; the likeliest token has all of the probability long before."""


def sample(logits: Tensor | Array, draws: Sequence[Draw], choose: Choose | None = None) -> list[Drawn]:
    """One token for each row of `logits` [rows, vocab], as `draws[row]` asks. `logits` stay as they are.

    `choose`, if there is one, is what chooses where a sampler asks for no more than it can do.

    A row that has no distribution (a NaN, +inf, or nothing but -inf), or whose draw allows nothing, is a fault of its
    own. Single -inf entries are never chosen, and a +inf that may not be chosen does no harm.
    """
    if not draws:
        return []
    values = logits if isinstance(logits, np.ndarray) else logits.numpy()
    assert len(values) == len(draws)
    changed = [
        row
        for row, draw in enumerate(draws)
        if draw.sampler.changes_logits or (draw.mask is not None and (choose is None or draw.sampler.settings is None))
    ]
    if not changed:
        return _chosen(values, draws, choose)
    drawn = [Drawn() for _ in draws]
    own = adjusted(torch.from_numpy(values[changed]), [draws[row] for row in changed]).numpy()
    asked = [replace(draws[row], mask=None) for row in changed]
    for row, one in zip(changed, _chosen(own, asked, choose), strict=True):
        drawn[row] = one
        # What a NaN has become of by then is not looked at: a row without a distribution stays one.
        if one.fault is not None and _greedy(values[row : row + 1])[0].fault is None:
            one.fault = NOTHING_ALLOWED
    if others := sorted(set(range(len(draws))).difference(changed)):
        own = values[others]
        for row, one in zip(others, _chosen(own, [draws[row] for row in others], choose), strict=True):
            drawn[row] = one
    return drawn


def _chosen(logits: Array, draws: Sequence[Draw], choose: Choose | None) -> list[Drawn]:
    """Of rows whose logits are as they are to be, but for masks where `choose` is there to apply them."""
    if choose is None:
        drawn = _greedy(logits)
        _draw_random(logits, draws, drawn, [row for row, draw in enumerate(draws) if not draw.sampler.is_greedy])
        return drawn
    samplers, masks = [draw.sampler for draw in draws], [draw.mask for draw in draws]
    drawn = [
        Drawn(token) if token >= 0 else Drawn(fault=FAULTS[token])
        for token in choose(logits, samplers, [draw.uniform for draw in draws], masks)
    ]
    others = [row for row, draw in enumerate(draws) if draw.sampler.settings is None]
    if others:
        _draw_random(logits, draws, drawn, others)
    return drawn


def _greedy(logits: Array) -> list[Drawn]:
    highest, tokens = likeliest(logits)
    if np.isfinite(highest).all():
        return [Drawn(token) for token in tokens.tolist()]
    found = zip(highest.tolist(), tokens.tolist(), strict=True)
    return [Drawn(token) if math.isfinite(value) else Drawn(fault=NO_DISTRIBUTION) for value, token in found]


def _draw_random(logits: Array, draws: Sequence[Draw], drawn: list[Drawn], rows: Sequence[int]) -> None:
    """Replace the likeliest token of `rows` by a random one.

    Rows that take the same steps go together, so none pays for what another one wants.
    """
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for row in rows:
        top_k = draws[row].sampler.top_k
        if drawn[row].fault is None:
            groups.setdefault((top_k if top_k < logits.shape[1] else 0, steps_of(draws[row])), []).append(row)
    for (top_k, steps), members in groups.items():
        if len(members) == len(draws):
            drawn[:] = _sample_rows(logits, top_k, steps, draws)
            return
        asked = [draws[row] for row in members]
        for row, one in zip(members, _sample_rows(logits[members], top_k, steps, asked), strict=True):
            drawn[row] = one


def _sample_rows(logits: Array, top_k: int, steps: Sequence[str], draws: Sequence[Draw]) -> list[Drawn]:
    """Rows with the same `top_k` (0: the whole vocabulary) that take the same steps."""
    temperatures = [[max(draw.sampler.temperature, _MIN_TEMPERATURE)] for draw in draws]
    scaled = (logits - logits.max(-1, keepdims=True)) / np.array(temperatures, np.float32)
    if top_k:
        values, ids = ranked(scaled, top_k)
        return _draw(Candidates(values), ids, steps, draws)[0]
    weights = np.exp(scaled)
    totals = row_sums(weights).astype(np.float64)
    energies = totals
    if not NEEDS_ENTROPY.isdisjoint(steps):
        energies = row_sums(weights * np.maximum(scaled, LEAST_VALUE)).astype(np.float64)
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


def _draw(left: Candidates, ids: Array, steps: Sequence[str], draws: Sequence[Draw]) -> tuple[list[Drawn], list[bool]]:
    """Take the steps, then draw by inverse CDF; also whether the candidates [rows, n] sufficed to decide."""
    for name in steps:
        STEPS[name](left, np.array([[getattr(draw.sampler, name)] for draw in draws], np.float64), draws)
    mass, cumulative = left.mass, left.weights.cumsum(-1)
    index = (cumulative <= np.array([[draw.uniform] for draw in draws]) * mass).sum(-1)
    num_candidates = cumulative.shape[1]
    is_decided = left.is_decided[:, 0] & ((index < num_candidates) | ~left.has_tail[:, 0])
    last = num_candidates - 1 - (left.weights > 0)[:, ::-1].argmax(-1)
    places = np.arange(len(ids)), np.minimum(index, last)
    drawn = [Drawn(token) for token in ids[places].tolist()]
    if "mirostat_tau" in steps:
        probabilities = (left.weights[places] / mass[:, 0]).tolist()
        for one, draw, probability in zip(drawn, draws, probabilities, strict=True):
            one.mirostat_mu = next_mu(draw, probability)
    return drawn, is_decided.tolist()
