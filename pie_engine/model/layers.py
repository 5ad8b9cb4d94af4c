"""The building blocks that model families share: linears, RMS norm, rotary positions.

Everything writes into buffers that the caller owns, because at decode shapes the price of a small operation is its
dispatch and its allocation, not its arithmetic. The residual stream is fp32 in every dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.config import RopeConfig

_FIRST_TABLE = 2048
"""Positions whose rotations are computed at load; the table doubles when a longer context comes."""


@dataclass(frozen=True, slots=True)
class Linear:
    """`y = x W + b`; `weight` is [in, out], the layout that small CPU matrix products are fastest in."""

    weight: Tensor
    bias: Tensor | None = None

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the product to `out` [tokens, out]."""
        if self.bias is None:
            torch.mm(x, self.weight, out=out)
        else:
            torch.addmm(self.bias, x, self.weight, out=out)

    def add_to(self, residual: Tensor, x: Tensor) -> None:
        """Add the product to the fp32 `residual` [tokens, out]."""
        if self.weight.dtype == residual.dtype:
            residual.addmm_(x, self.weight)
        else:
            residual.add_(torch.mm(x, self.weight))
        if self.bias is not None:
            residual.add_(self.bias)


class RMSNorm:
    """Root-mean-square norm in fp32 (https://arxiv.org/abs/1910.07467)."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        size = weight.shape[0]
        self.scale = weight.float() * math.sqrt(size)
        self._eps_sum = torch.tensor(eps * size)
        """A tensor, because adding a Python number to a tensor in place costs three times as much."""

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the norm of the fp32 `x` [tokens, size] to `out`, in the dtype of `out`.

        w x / sqrt(sum(x²)/n + eps) = (w sqrt(n)) x / sqrt(sum(x²) + n eps): five small operations and no temporary.
        """
        inverse = torch.linalg.vecdot(x, x).add_(self._eps_sum).rsqrt_().unsqueeze_(1)
        if out.dtype == torch.float32:
            torch.mul(x, inverse, out=out).mul_(self.scale)
        else:
            torch.mul(torch.mul(x, inverse), self.scale, out=out)


class Rope:
    """Rotary positions (https://arxiv.org/abs/2104.09864) as one complex product.

    The weights of the query and key projections are reordered at load so that the two numbers of a pair are
    neighbours (`interleave_pairs`); rotating a pair is then multiplying a complex number.
    """

    def __init__(self, config: RopeConfig, head_dim: int) -> None:
        self._inverse_freqs = inverse_frequencies(config, head_dim)
        self._table = self._rotations(_FIRST_TABLE)

    def rotations(self, positions: Sequence[int]) -> Tensor:
        """Unit complex numbers [positions, head_dim / 2]."""
        if max(positions) >= len(self._table):
            self._table = self._rotations(1 << max(positions).bit_length())
        return self._table.index_select(0, torch.tensor(positions))

    def _rotations(self, num_positions: int) -> Tensor:
        angles = torch.arange(num_positions).float().unsqueeze(1) * self._inverse_freqs
        return torch.polar(torch.ones_like(angles), angles)


def inverse_frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """Radians per position of each pair [head_dim / 2], with the scaling that `config` asks for.

    `llama3` leaves short wavelengths, divides long ones by `factor` and blends in between, as Llama 3.1 was trained.
    """
    base = 1.0 / config.theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
    if config.kind == "default":
        return base
    if config.kind == "linear":
        return base / config.factor
    assert config.kind == "llama3", config.kind
    turns = config.original_max_position * base / (2 * math.pi)
    smooth = (turns - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor)
    return torch.lerp(base / config.factor, base, smooth.clamp(0, 1))


def interleave_pairs(rows: Tensor, head_dim: int) -> Tensor:
    """Reorder the first dimension (heads × head_dim) from halves (x0… y0…), as checkpoints have it, to pairs."""
    rest = rows.shape[1:]
    return rows.view(-1, 2, head_dim // 2, *rest).transpose(1, 2).reshape(rows.shape)
