"""Experts that a file has in one tensor each, as gpt-oss has them: in plain numbers, or packed as MXFP4.

MXFP4 (https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf): blocks of 32 numbers of
4 bits, two to a byte, the lower half first, and a power of two for each block. They are unpacked when they are read,
because multiplying packed numbers takes a kernel that plain torch does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.description import ExpertsConfig, Names
from pie_engine.model.experts import Mlp
from pie_engine.model.layers import Linear
from pie_engine.model.weights import WeightReader

_NUMBERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_BIAS = 127
"""A scale of this is 1."""


@dataclass(frozen=True, slots=True)
class StackedExperts:
    """Reads the experts of one layer, whose tensors begin with `prefix`."""

    reader: WeightReader
    prefix: str
    names: Names
    config: ExpertsConfig

    def expert(self, number: int) -> Mlp:
        """Gate and up projections alternate in the file; here the gates come first."""
        inner = self.config.intermediate_size
        gates_first = torch.arange(2 * inner).view(inner, 2).t().reshape(-1)
        return Mlp(
            self._linear(self.names.expert_gate_up[0], number, gates_first),
            self._linear(self.names.expert_down, number),
        )

    def _linear(self, name: str, number: int, order: Tensor | None = None) -> Linear:
        weight = self._weight(self.prefix + name, number)
        bias = self.reader.stored(f"{self.prefix}{name}_bias")[number] if self.config.has_bias else None
        if order is not None:
            weight, bias = weight[:, order], None if bias is None else bias[order]
        dtype = self.reader.dtype
        return Linear(
            torch.empty(weight.shape, dtype=dtype).copy_(weight), None if bias is None else bias.to(dtype, copy=True)
        )

    def _weight(self, name: str, number: int) -> Tensor:
        """[in, out], in a dtype that holds it exactly."""
        if not self.config.is_packed:
            return self.reader.stored(name)[number]
        blocks, scales = (self.reader.stored(f"{name}_{part}")[number] for part in ("blocks", "scales"))
        return unpack_mxfp4(blocks, scales).t()


def unpack_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """fp32 [rows, 32 * blocks] of bytes [rows, blocks, 16] and scales [rows, blocks]."""
    numbers = torch.tensor([*_NUMBERS, *(-number for number in _NUMBERS)])
    pairs = torch.stack([numbers.repeat(16), numbers.repeat_interleave(16)], dim=1)  # of each byte
    unpacked = pairs[blocks.int()].flatten(-2)
    return torch.ldexp(unpacked, scales.int().unsqueeze(-1) - _BIAS).flatten(-2)
