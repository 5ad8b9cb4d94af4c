"""The building blocks of a decoder: linears and norms, as plain data.

Everything writes into buffers that the caller owns, because at decode shapes the price of a small operation is its
dispatch and its allocation, not its arithmetic. The residual stream is fp32 in every dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class AnyLinear(Protocol):
    """What a projection can do, however its weights are kept."""

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and outputs."""

    def into(self, out: Tensor, x: Tensor) -> None: ...

    def of(self, x: Tensor) -> Tensor: ...

    def add_to(self, residual: Tensor, x: Tensor, scale: float = 1.0) -> None: ...


@dataclass(frozen=True, slots=True)
class Linear:
    """`y = x W + b`; `weight` is [in, out], the layout that small CPU matrix products are fastest in."""

    weight: Tensor
    bias: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        num_inputs, num_outputs = self.weight.shape
        return num_inputs, num_outputs

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the product to `out` [tokens, out]."""
        if self.bias is None:
            torch.mm(x, self.weight, out=out)
        else:
            torch.addmm(self.bias, x, self.weight, out=out)

    def of(self, x: Tensor) -> Tensor:
        """The product [tokens, out], in the dtype of the weights."""
        return torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def add_to(self, residual: Tensor, x: Tensor, scale: float = 1.0) -> None:
        """Add `scale` times the product to the fp32 `residual` [tokens, out]."""
        if self.weight.dtype == residual.dtype:
            residual.addmm_(x, self.weight, alpha=scale)
        else:
            residual.add_(torch.mm(x, self.weight), alpha=scale)
        if self.bias is not None:
            residual.add_(self.bias, alpha=scale)


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """Root-mean-square norm over the last dimension, in fp32 (https://arxiv.org/abs/1910.07467)."""

    scale: Tensor
    """The weights times sqrt(size)."""
    eps_sum: Tensor
    """eps times the size, as a tensor: adding a Python number to a tensor in place costs three times as much."""

    @classmethod
    def of(cls, weight: Tensor, eps: float) -> RMSNorm:
        """With `weight` [size], or [rows, size] where each row of the input has weights of its own."""
        size = weight.shape[-1]
        return cls(weight.float() * math.sqrt(size), torch.tensor(eps * size))

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the norm of the fp32 `x` [..., size] to `out`, in the dtype of `out`; they may be the same.

        w x / sqrt(sum(x²)/n + eps) = (w sqrt(n)) x / sqrt(sum(x²) + n eps): five small operations and no temporary.
        """
        inverse = torch.linalg.vecdot(x, x).add_(self.eps_sum).rsqrt_().unsqueeze_(-1)
        if out.dtype == torch.float32:
            torch.mul(x, inverse, out=out).mul_(self.scale)
        else:
            torch.mul(torch.mul(x, inverse), self.scale, out=out)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Norm over the last dimension that takes the mean away first, in fp32 (https://arxiv.org/abs/1607.06450)."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the norm of the fp32 `x` [..., size] to `out`, in the dtype of `out`; they may be the same."""
        out.copy_(torch.nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps))


AnyNorm = RMSNorm | LayerNorm
