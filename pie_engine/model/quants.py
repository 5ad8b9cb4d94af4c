"""Matrices of few bits, as plain tensors: what quantizing on load makes, and what GGUF files hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pie_engine.model.kernels.blocks import BLOCKS, Blocks


@dataclass(frozen=True, slots=True)
class Quants:
    """A matrix [out, in] of a kind of `kernels.blocks`, which says what the parts mean."""

    kind: str
    quants: Tensor
    """int8, or uint8 for those of 4 bits: [out, in]."""
    scales: Tensor
    """bf16 or fp16 [out, blocks]."""
    lowest: Tensor | None = None
    """As `scales`."""
    scale_factors: Tensor | None = None
    """int8 or uint8 [out, groups]."""
    lowest_factors: Tensor | None = None

    @property
    def blocks(self) -> Blocks:
        return BLOCKS[self.kind]

    @property
    def num_outputs(self) -> int:
        return self.quants.shape[0]

    @property
    def num_inputs(self) -> int:
        return self.quants.shape[1]

    def select(self, order: Tensor) -> Quants:
        """With the outputs `order` of these."""
        return self._made_of([self], lambda parts: parts[0][order])

    @classmethod
    def side_by_side(cls, parts: Sequence[Quants]) -> Quants:
        """The outputs of all `parts`, which have the same kind and the same inputs."""
        return cls._made_of(parts, torch.cat)

    @classmethod
    def _made_of(cls, parts: Sequence[Quants], make: Callable[[list[Tensor]], Tensor]) -> Quants:
        tensors = {
            field.name: [getattr(part, field.name) for part in parts] for field in fields(cls) if field.name != "kind"
        }
        made = {name: make(has) for name, has in tensors.items() if has[0] is not None}
        return cls(parts[0].kind, **made)

    def numbers(self) -> Tensor:
        """The weights, fp32 [out, in]: `scale * (quant + offset) + lowest`, with a scale times its factor."""
        blocks = self.blocks
        numbers = self.quants.float().add_(blocks.offset)
        numbers.mul_(self._by_input(self.scales, self.scale_factors))
        return numbers if self.lowest is None else numbers.add_(self._by_input(self.lowest, self.lowest_factors))

    def _by_input(self, table: Tensor, factors: Tensor | None) -> Tensor:
        blocks, table = self.blocks, table.float()
        if factors is not None:
            table = table.repeat_interleave(blocks.inputs // blocks.group_inputs, 1) * factors
        return table.repeat_interleave(blocks.group_inputs or blocks.inputs, 1)[:, : self.num_inputs]
