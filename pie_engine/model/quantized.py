"""Linears whose weights are quantized when they are loaded; activations are not.

int8: one scale for each output, symmetric. int4: a scale and a middle for each group of inputs of each output. The
compiled kernels multiply them as they are (`kernels`); on torch its own kernels for packed weights do, which take bf16
activations whatever the engine's dtype is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.kernels.blocks import BLOCKS
from pie_engine.model.quantization import GROUP_SIZE, Quantization
from pie_engine.model.quants import Quants

MAX_PACKED_TOKENS = 16
"""With more of them it is faster to turn int8 weights into numbers and multiply those."""


class _Product:
    """What linears do with their product `of` activations."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and outputs."""
        raise NotImplementedError

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the product to `out` [tokens, out]."""
        out.copy_(self.of(x))

    def add_to(self, residual: Tensor, x: Tensor, scale: float = 1.0) -> None:
        """Add `scale` times the product to the fp32 `residual` [tokens, out]."""
        residual.add_(self.of(x), alpha=scale)

    def of(self, x: Tensor) -> Tensor:
        """The product [tokens, out], in the dtype of `x`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class QuantizedLinear(_Product):
    """Any quants, or rows [out, in], side by side; multiplied as the numbers that they stand for: exact and slow."""

    parts: tuple[Quants | Tensor, ...]
    bias: Tensor | None = None

    @classmethod
    def side_by_side(cls, parts: Sequence[Quants | Tensor], bias: Tensor | None) -> QuantizedLinear:
        """Neighbouring quants of the same kind become one."""
        joined: list[Quants | Tensor] = []
        for part in parts:
            last = joined[-1] if joined else None
            if isinstance(part, Quants) and isinstance(last, Quants) and part.kind == last.kind:
                joined[-1] = Quants.side_by_side([last, part])
            else:
                joined.append(part)
        return cls(tuple(joined), bias)

    @property
    def shape(self) -> tuple[int, int]:
        sizes = [
            (part.num_inputs, part.num_outputs) if isinstance(part, Quants) else part.shape[::-1] for part in self.parts
        ]
        return sizes[0][0], sum(num_outputs for _, num_outputs in sizes)

    def of(self, x: Tensor) -> Tensor:
        rows = torch.cat([part.numbers() if isinstance(part, Quants) else part.float() for part in self.parts])
        return _biased(torch.mm(x.float(), rows.t()).to(x.dtype), self.bias)

    def packed_by_torch(self) -> Int8Linear | Int4Linear:
        """For torch's own kernels: what `quantized` has made."""
        [quants] = self.parts
        assert isinstance(quants, Quants)
        return (Int8Linear if quants.kind == "int8" else Int4Linear).of_quants(quants, self.bias)


@dataclass(frozen=True, slots=True)
class Int8Linear(_Product):
    """`weight` int8 [out, in], `scales` bf16 [out]."""

    weight: Tensor
    scales: Tensor
    bias: Tensor | None = None

    @classmethod
    def of_quants(cls, quants: Quants, bias: Tensor | None = None) -> Int8Linear:
        return cls(quants.quants, quants.scales[:, 0].contiguous(), bias)

    @property
    def shape(self) -> tuple[int, int]:
        num_outputs, num_inputs = self.weight.shape
        return num_inputs, num_outputs

    def of(self, x: Tensor) -> Tensor:
        if len(x) > MAX_PACKED_TOKENS:
            product = torch.mm(x.float(), (self.weight.float() * self.scales.float().unsqueeze(1)).t()).to(x.dtype)
        else:
            product = torch.ops.aten._weight_int8pack_mm(x.bfloat16(), self.weight, self.scales).to(x.dtype)
        return _biased(product, self.bias)


@dataclass(frozen=True, slots=True)
class Int4Linear(_Product):
    """`packed` as torch packs it for this processor; `scales_and_middles` bf16 [in / GROUP_SIZE, out, 2]."""

    packed: Tensor
    scales_and_middles: Tensor
    bias: Tensor | None = None

    @classmethod
    def of_quants(cls, quants: Quants, bias: Tensor | None = None) -> Int4Linear:
        assert quants.lowest is not None
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(quants.quants.int().contiguous(), 1)
        return cls(packed, torch.stack([quants.scales.t(), quants.lowest.t()], dim=2).contiguous(), bias)

    @property
    def shape(self) -> tuple[int, int]:
        num_groups, num_outputs, _ = self.scales_and_middles.shape
        return num_groups * GROUP_SIZE, num_outputs

    def of(self, x: Tensor) -> Tensor:
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.bfloat16(), self.packed, GROUP_SIZE, self.scales_and_middles
        )
        return _biased(product.to(x.dtype), self.bias)


def quantized(kind: Quantization, rows: Tensor) -> Quants:
    """`rows` [out, in] as `kind`, whose size `can_quantize` has allowed; the rounding of scales is made up for."""
    return quantize_int8(rows) if kind == "int8" else quantize_int4(rows)


def quantize_int8(rows: Tensor) -> Quants:
    """By the largest number of each output."""
    rows = rows.float()
    scales = (rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127).bfloat16()
    quants = torch.round(rows / scales.float()).clamp(-127, 127).to(torch.int8)
    num_blocks = -(-rows.shape[1] // BLOCKS["int8"].inputs)
    return Quants("int8", quants.contiguous(), scales.expand(-1, num_blocks))


def quantize_int4(rows: Tensor) -> Quants:
    """By the range of each group."""
    groups = rows.float().reshape(len(rows), -1, GROUP_SIZE)
    low, high = groups.amin(2), groups.amax(2)
    scales = ((high - low).clamp(min=1e-12) / 15).bfloat16()
    middles = (low + 8 * scales.float()).bfloat16()
    quants = ((groups - middles.float().unsqueeze(2)) / scales.float().unsqueeze(2) + 8).round().clamp(0, 15)
    return Quants("int4", quants.flatten(1).to(torch.uint8).contiguous(), scales, middles)


def _biased(product: Tensor, bias: Tensor | None) -> Tensor:
    return product if bias is None else product.add_(bias)
