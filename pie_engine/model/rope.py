"""Rotary positions (https://arxiv.org/abs/2104.09864) as one complex product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pie_engine.model.description import RopeConfig

_FIRST_TABLE = 2048
"""Positions whose rotations are computed at load; the table doubles when a longer context comes."""


class Rope:
    """The rotations of one kind of layer.

    The weights of the query and key projections are reordered at load so that the two numbers of a pair are
    neighbours (`pair_order`); rotating a pair is then multiplying a complex number. What is not to be rotated is
    multiplied by one, so every model takes the same path.
    """

    def __init__(self, config: RopeConfig | None, head_dim: int) -> None:
        """`config=None` rotates nothing."""
        self._freqs, self._growth = torch.zeros(head_dim // 2), torch.ones(head_dim // 2)
        if config is not None:
            rotated = inverse_frequencies(config, config.rotated_dim(head_dim))
            self._freqs[: len(rotated)] = rotated
            self._growth[: len(rotated)] = config.attention_factor
        self._grow(_FIRST_TABLE)

    def rotations(self, positions: Sequence[int]) -> Tensor:
        """Complex numbers [positions, head_dim / 2], of length `attention_factor`."""
        if max(positions) >= len(self._table):
            self._grow(1 << max(positions).bit_length())
        return self._table.index_select(0, torch.tensor(positions))

    def pairs(self, num_positions: int) -> np.ndarray:
        """The same of all positions as pairs of numbers: at least the first `num_positions` rows of [.., head_dim]."""
        if num_positions > len(self._pairs):
            self._grow(1 << (num_positions - 1).bit_length())
        return self._pairs

    def _grow(self, num_positions: int) -> None:
        self._table = self._rotations(num_positions)
        self._pairs = torch.view_as_real(self._table).flatten(1).numpy()

    def _rotations(self, num_positions: int) -> Tensor:
        angles = torch.arange(num_positions).float().unsqueeze(1) * self._freqs
        return torch.polar(self._growth.expand_as(angles), angles)


def inverse_frequencies(config: RopeConfig, dim: int) -> Tensor:
    """Radians per position of each pair [dim / 2], with the scaling that `config` asks for."""
    base = 1.0 / config.theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)
    if config.kind == "default":
        return base
    if config.kind == "linear":
        return base / config.factor
    if config.kind == "longrope":
        return base / torch.tensor(config.factors)
    if config.kind == "yarn":
        return _yarn(config, base, dim)
    assert config.kind == "llama3", config.kind
    return _llama3(config, base)


def _llama3(config: RopeConfig, base: Tensor) -> Tensor:
    """Short wavelengths stay, long ones are divided by `factor`, and in between it blends, as Llama 3.1 was trained."""
    turns = config.original_max_position * base / (2 * math.pi)
    smooth = (turns - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor)
    return torch.lerp(base / config.factor, base, smooth.clamp(0, 1))


def _yarn(config: RopeConfig, base: Tensor, dim: int) -> Tensor:
    """Pairs that turn more than `beta_fast` times over the trained length stay, those that turn less than `beta_slow`
    times are divided by `factor`, and in between it is linear in the pair's index (https://arxiv.org/abs/2309.00071).
    """

    def pair_that_turns(times: float) -> float:
        return dim * math.log(config.original_max_position / (times * 2 * math.pi)) / (2 * math.log(config.theta))

    low, high = pair_that_turns(config.beta_fast), pair_that_turns(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low if high != low else 0.001
    is_slow = ((torch.arange(dim // 2).float() - low) / width).clamp(0, 1)
    return torch.lerp(base, base / config.factor, is_slow)


def pair_order(num_heads: int, head_dim: int, rotated_dim: int) -> Tensor:
    """Where each row of a projection (heads × head_dim) comes from, when pairs are to be neighbours.

    Checkpoints have the rotated part of a head in halves (x0 x1 … y0 y1 …); what follows it stays.
    """
    half = rotated_dim // 2
    head = torch.arange(head_dim)
    head[:rotated_dim] = torch.stack([torch.arange(half), torch.arange(half) + half], dim=1).view(-1)
    return (torch.arange(num_heads).unsqueeze(1) * head_dim + head).view(-1)
