"""Weights in the layout of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.kernels import codes
from pie_engine.model.kernels.program import Program, row_bytes
from pie_engine.model.kernels.tile import WIDTH


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """`y = x W + b` with `panels` [panels, inputs, 32], fp32 or bf16, and `bias` in fp32, padded with zeros."""

    panels: Tensor
    bias: Tensor | None
    num_outputs: int

    @classmethod
    def of_rows(cls, weight: Tensor, bias: Tensor | None = None) -> PackedLinear:
        """From `weight` [outputs, inputs], as checkpoints have it."""
        num_outputs, num_inputs = weight.shape
        num_panels = -(-num_outputs // WIDTH)
        panels = torch.zeros(num_panels, num_inputs, WIDTH, dtype=weight.dtype)
        by_output = panels.transpose(1, 2)
        whole = num_outputs // WIDTH
        by_output[:whole] = weight[: whole * WIDTH].view(whole, WIDTH, num_inputs)
        if whole < num_panels:
            by_output[whole, : num_outputs - whole * WIDTH] = weight[whole * WIDTH :]
        if bias is not None:
            padded = torch.zeros(num_panels * WIDTH)
            padded[:num_outputs] = bias
            bias = padded
        return cls(panels, bias, num_outputs)

    @property
    def padded_outputs(self) -> int:
        """Columns that are written: whole panels."""
        return len(self.panels) * WIDTH

    def into(self, steps: Program, x: Tensor, y: Tensor) -> None:
        """Append y[:, :padded_outputs] = x W + b."""
        self._append(steps, x, y, adds=False)

    def add_to(self, steps: Program, x: Tensor, y: Tensor) -> None:
        """Append y[:, :padded_outputs] += x W + b."""
        self._append(steps, x, y, adds=True)

    def _append(self, steps: Program, x: Tensor, y: Tensor, *, adds: bool) -> None:
        assert y.shape[1] >= self.padded_outputs, (y.shape, self.num_outputs)
        code = codes.ADD_MATMUL if adds else codes.MATMUL
        bias: Tensor | int = 0 if self.bias is None else self.bias
        steps.add(code, x, self.panels, self.panels.shape[1], bias, y, row_bytes(y), len(self.panels))


@dataclass(frozen=True, slots=True)
class PackedExperts:
    """Linears of the same size: `panels` [experts, panels, inputs, 32], `bias` [experts, padded outputs]."""

    panels: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, linears: Sequence[PackedLinear]) -> PackedExperts:
        biases = [linear.bias for linear in linears if linear.bias is not None]
        return cls(torch.stack([linear.panels for linear in linears]), torch.stack(biases) if biases else None)

    def into(self, steps: Program, x: Tensor, y: Tensor, starts: Tensor, times: int) -> None:
        """Append y = x W + b, of each expert for its rows: those from its start to that of the next one.

        `times` is the number of experts that a token goes through.
        """
        num_experts, num_panels, num_inputs, width = self.panels.shape
        assert y.shape[1] >= num_panels * width, (y.shape, self.panels.shape)
        bias: Tensor | int = 0 if self.bias is None else self.bias
        steps.add(
            codes.EXPERTS, x, self.panels, num_inputs, bias, y, row_bytes(y), num_panels, starts, num_experts,
            self.panels[0].nbytes, times=times,
        )  # fmt: skip
