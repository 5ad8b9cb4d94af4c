"""Penalties on tokens that were there before. They change rows of logits in place, greedy or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pie_engine.protocol.sampling import Sampler
from pie_engine.sampling.draw import Draw

MAX_DRY_MATCH = 50
"""A longer repetition is punished like one of this length: the penalty grows exponentially."""

Ids = np.ndarray


@dataclass(frozen=True, slots=True)
class _Seen:
    """Tokens of a row, each once, and how often they count."""

    row: int
    ids: Ids
    counts: Ids


def penalize(logits: Tensor, draws: Sequence[Draw]) -> None:
    """Apply the penalties of `draws[row]` to each row of `logits` [rows, vocab], which is contiguous."""
    windows = [_window(draw) for draw in draws]
    _repetition(logits, draws, windows)
    _frequency_and_presence(logits, draws, windows)
    for row, draw in enumerate(draws):
        if draw.sampler.dry_multiplier:
            penalties = dry_penalties(windows[row], draw.sampler)
            if penalties:
                logits[row, list(penalties)] -= torch.tensor(list(penalties.values()), device=logits.device)


def _window(draw: Draw) -> Ids:
    """The tokens that count, as a copy."""
    if not draw.sampler.reads_history:
        return np.empty(0, np.int64)
    return np.asarray(draw.history, np.int32)[-draw.sampler.penalty_window :].astype(np.int64)


def _repetition(logits: Tensor, draws: Sequence[Draw], windows: Sequence[Ids]) -> None:
    """Divide positive logits of seen tokens by the penalty, multiply negative ones (Keskar et al. 2019, CTRL)."""
    seen = [
        _Seen(row, *_counted(window))
        for row, (draw, window) in enumerate(zip(draws, windows, strict=True))
        if draw.sampler.repetition_penalty != 1.0
    ]
    if places := _Places.of(logits, seen):
        penalty = places.spread([draws[one.row].sampler.repetition_penalty for one in seen])
        values = places.take()
        places.put(torch.where(values < 0, values * penalty, values / penalty))


def _frequency_and_presence(logits: Tensor, draws: Sequence[Draw], windows: Sequence[Ids]) -> None:
    """Subtract `frequency * count + presence` for what was generated (OpenAI's definition)."""
    seen = [
        _Seen(row, *_counted(window[_num_prompt(draw, len(window)) :]))
        for row, (draw, window) in enumerate(zip(draws, windows, strict=True))
        if draw.sampler.frequency_penalty or draw.sampler.presence_penalty
    ]
    if places := _Places.of(logits, seen):
        counts = torch.from_numpy(np.concatenate([one.counts for one in seen])).to(logits)
        frequency = places.spread([draws[one.row].sampler.frequency_penalty for one in seen])
        presence = places.spread([draws[one.row].sampler.presence_penalty for one in seen])
        places.put(places.take() - frequency * counts - presence)


def _counted(tokens: Ids) -> tuple[Ids, Ids]:
    """Each token once, and how often it is there. A quarter of the time of `np.unique`, which sorts."""
    counts = np.bincount(tokens)
    ids = np.flatnonzero(counts > 0)
    return ids, counts[ids]


def _num_prompt(draw: Draw, window: int) -> int:
    """How many tokens of the window belong to the prompt."""
    return max(0, draw.prompt_length - (len(draw.history) - window))


class _Places:
    """Entries of several rows, read and written at once."""

    def __init__(self, logits: Tensor, seen: Sequence[_Seen]) -> None:
        self._flat = logits.view(-1)
        self._index = torch.from_numpy(np.concatenate([one.ids + one.row * logits.shape[1] for one in seen]))
        self._index = self._index.to(logits.device)
        self._lengths = torch.tensor([len(one.ids) for one in seen])

    @classmethod
    def of(cls, logits: Tensor, seen: Sequence[_Seen]) -> _Places | None:
        return cls(logits, seen) if any(len(one.ids) for one in seen) else None

    def spread(self, values: Sequence[float]) -> Tensor:
        """One value of each row → one for each entry."""
        return torch.tensor(values).repeat_interleave(self._lengths).to(self._flat)

    def take(self) -> Tensor:
        return self._flat[self._index]

    def put(self, values: Tensor) -> None:
        self._flat[self._index] = values


def dry_penalties(tokens: Ids, sampler: Sampler) -> dict[int, float]:
    """What DRY subtracts from the logit of each token that would go on with a repetition ("Don't Repeat Yourself").

    `multiplier * base ** (length - allowed length)`, where `length` is how much of the end of `tokens` is there before,
    followed by that token (p-e-w, text-generation-webui pull request 5677, of 2024).
    """
    breakers = np.array(sampler.dry_breakers, np.int64)
    if len(tokens) < 2 or tokens[-1] in breakers:
        return {}
    ends = np.flatnonzero(tokens[:-1] == tokens[-1])
    ends = ends[~np.isin(tokens[ends + 1], breakers)]
    lengths: dict[int, int] = {}
    for length in range(1, MAX_DRY_MATCH + 1):
        if not len(ends):
            break
        lengths.update(dict.fromkeys(tokens[ends + 1].tolist(), length))
        previous = tokens[-1 - length] if length < len(tokens) else None
        if previous is None or previous in breakers:
            break
        ends = ends[ends >= length]
        ends = ends[tokens[ends - length] == previous]
    allowed = sampler.dry_allowed_length
    return {
        token: sampler.dry_multiplier * sampler.dry_base ** (length - allowed)
        for token, length in lengths.items()
        if length >= allowed
    }
