"""Linears whose weights are quantized when they are loaded; activations are not.

int8: one scale for each output, symmetric. int4: a scale and a zero for each group of inputs of each output. The
products are torch's own kernels for packed weights; they take bf16 activations whatever the engine's dtype is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.quantization import GROUP_SIZE, Quantization

MAX_PACKED_TOKENS = 16
"""With more of them it is faster to turn int8 weights into numbers and multiply those."""


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """`weight` int8 [out, in], `scales` bf16 [out]."""

    weight: Tensor
    scales: Tensor
    bias: Tensor | None = None

    @classmethod
    def of_rows(cls, rows: Tensor, bias: Tensor | None = None) -> Int8Linear:
        """Quantize `rows` [out, in]; the rounding of the scales is taken into account."""
        scales = (rows.float().abs().amax(1).clamp(min=1e-12) / 127).bfloat16()
        weight = torch.round(rows.float() / scales.float().unsqueeze(1)).clamp(-127, 127).to(torch.int8)
        return cls(weight.contiguous(), scales.contiguous(), bias)

    def rows(self) -> Tensor:
        """The numbers that the weights stand for, fp32 [out, in]."""
        return self.weight.float() * self.scales.float().unsqueeze(1)

    def of(self, x: Tensor) -> Tensor:
        """The product [tokens, out], in the dtype of `x`."""
        if len(x) > MAX_PACKED_TOKENS:
            product = torch.mm(x.float(), self.rows().t()).to(x.dtype)
        else:
            product = torch.ops.aten._weight_int8pack_mm(x.bfloat16(), self.weight, self.scales).to(x.dtype)
        return product if self.bias is None else product.add_(self.bias)

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the product to `out` [tokens, out]."""
        out.copy_(self.of(x))

    def add_to(self, residual: Tensor, x: Tensor, scale: float = 1.0) -> None:
        """Add `scale` times the product to the fp32 `residual` [tokens, out]."""
        residual.add_(self.of(x), alpha=scale)


@dataclass(frozen=True, slots=True)
class Int4Linear:
    """`packed` as torch packs it for this processor; `scales_and_zeros` bf16 [in / GROUP_SIZE, out, 2].

    A number is `(q - 8) * scale + zero`, with q from 0 to 15.
    """

    packed: Tensor
    scales_and_zeros: Tensor
    bias: Tensor | None = None

    @classmethod
    def of_rows(cls, rows: Tensor, bias: Tensor | None = None) -> Int4Linear:
        """Quantize `rows` [out, in]."""
        quants, scales_and_zeros = quantize_int4(rows)
        return cls(torch.ops.aten._convert_weight_to_int4pack_for_cpu(quants, 1), scales_and_zeros, bias)

    def of(self, x: Tensor) -> Tensor:
        """The product [tokens, out], in the dtype of `x`."""
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.bfloat16(), self.packed, GROUP_SIZE, self.scales_and_zeros
        ).to(x.dtype)
        return product if self.bias is None else product.add_(self.bias)

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the product to `out` [tokens, out]."""
        out.copy_(self.of(x))

    def add_to(self, residual: Tensor, x: Tensor, scale: float = 1.0) -> None:
        """Add `scale` times the product to the fp32 `residual` [tokens, out]."""
        residual.add_(self.of(x), alpha=scale)


def quantize_int4(rows: Tensor) -> tuple[Tensor, Tensor]:
    """int32 [out, in] from 0 to 15, and scales and zeros as `Int4Linear` has them: from the range of each group."""
    groups = rows.float().reshape(len(rows), -1, GROUP_SIZE)
    low, high = groups.amin(2), groups.amax(2)
    scales = ((high - low).clamp(min=1e-12) / 15).bfloat16()
    zeros = (low + 8 * scales.float()).bfloat16()
    quants = ((groups - zeros.float().unsqueeze(2)) / scales.float().unsqueeze(2) + 8).round().clamp(0, 15)
    scales_and_zeros = torch.stack([scales.t(), zeros.t()], dim=2).contiguous()
    return quants.flatten(1).int().contiguous(), scales_and_zeros


def quantized(kind: Quantization, rows: Tensor, bias: Tensor | None) -> Int8Linear | Int4Linear:
    """`rows` [out, in] as `kind`, whose size `can_quantize` has allowed."""
    return (Int8Linear if kind == "int8" else Int4Linear).of_rows(rows, bias)
