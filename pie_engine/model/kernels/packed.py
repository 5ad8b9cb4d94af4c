"""Weights in the layout of the kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.kernels import codes
from pie_engine.model.kernels.blocks import WIDTH
from pie_engine.model.kernels.matmul import matmul_kernel
from pie_engine.model.kernels.packing import pack
from pie_engine.model.kernels.program import Program, row_bytes
from pie_engine.model.quants import Quants


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """`y = x W + b` with weights of one `kind`, and `bias` in fp32, padded with zeros."""

    kind: str
    panels: Tensor
    """fp32 or bf16 [panels, inputs, 32], or uint8 [panels, bytes] of blocks."""
    bias: Tensor | None
    num_inputs: int
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
        return cls(str(weight.dtype).removeprefix("torch."), panels, _padded(bias), num_inputs, num_outputs)

    @classmethod
    def of_table(cls, table: Quants | Tensor, bias: Tensor | None = None) -> PackedLinear:
        """From quants, or from numbers [outputs, inputs]."""
        return cls.of_quants(table, bias) if isinstance(table, Quants) else cls.of_rows(table, bias)

    @classmethod
    def of_quants(cls, quants: Quants, bias: Tensor | None = None) -> PackedLinear:
        """From a matrix of few bits, which it remains."""
        return cls(quants.kind, pack(quants), _padded(bias), quants.num_inputs, quants.num_outputs)

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
        bias: Tensor | int = 0 if self.bias is None else self.bias
        steps.add(
            codes.MATMUL, x, self.panels, row_bytes(self.panels), self.num_inputs, bias, y, row_bytes(y), int(adds),
            len(self.panels), matmul_kernel(self.kind).address,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Linears of the same inputs with weights of several kinds; used as one `PackedLinear` is."""

    parts: tuple[PackedLinear, ...]

    @property
    def padded_outputs(self) -> int:
        """Columns that are written."""
        return sum(part.num_outputs for part in self.parts[:-1]) + self.parts[-1].padded_outputs

    def into(self, steps: Program, x: Tensor, y: Tensor) -> None:
        for part, columns in self._columns(y):
            part.into(steps, x, columns)

    def add_to(self, steps: Program, x: Tensor, y: Tensor) -> None:
        for part, columns in self._columns(y):
            part.add_to(steps, x, columns)

    def _columns(self, y: Tensor) -> Iterator[tuple[PackedLinear, Tensor]]:
        """In this order each part writes what the padding of the one before it has touched."""
        first = 0
        for part in self.parts:
            yield part, y[:, first:]
            first += part.num_outputs


AnyPacked = PackedLinear | SideBySide


@dataclass(frozen=True, slots=True)
class PackedExperts:
    """Linears of the same size and kind: `panels` [experts, panels, ...], `bias` [experts, padded outputs]."""

    kind: str
    panels: Tensor
    bias: Tensor | None
    num_inputs: int
    num_outputs: int

    @classmethod
    def of(cls, linears: Sequence[PackedLinear]) -> PackedExperts:
        first = linears[0]
        biases = [linear.bias for linear in linears if linear.bias is not None]
        panels = torch.stack([linear.panels for linear in linears])
        return cls(first.kind, panels, torch.stack(biases) if biases else None, first.num_inputs, first.num_outputs)

    def into(self, steps: Program, x: Tensor, y: Tensor, starts: Tensor, times: int) -> None:
        """Append y = x W + b, of each expert for its rows: those from its start to that of the next one.

        `times` is the number of experts that a token goes through.
        """
        num_experts, num_panels = self.panels.shape[:2]
        assert y.shape[1] >= num_panels * WIDTH, (y.shape, self.panels.shape)
        bias: Tensor | int = 0 if self.bias is None else self.bias
        steps.add(
            codes.EXPERTS, x, self.panels, row_bytes(self.panels[0]), self.num_inputs, bias, y, row_bytes(y), 0,
            num_panels, matmul_kernel(self.kind).address, starts, num_experts, row_bytes(self.panels), times=times,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExpertsSideBySide:
    """Those whose linears are `SideBySide`; used as one `PackedExperts` is."""

    parts: tuple[PackedExperts, ...]

    @classmethod
    def of(cls, linears: Sequence[SideBySide]) -> ExpertsSideBySide:
        return cls(tuple(map(PackedExperts.of, zip(*(linear.parts for linear in linears), strict=True))))

    def into(self, steps: Program, x: Tensor, y: Tensor, starts: Tensor, times: int) -> None:
        first = 0
        for part in self.parts:
            part.into(steps, x, y[:, first:], starts, times)
            first += part.num_outputs


AnyExperts = PackedExperts | ExpertsSideBySide


def _padded(bias: Tensor | None) -> Tensor | None:
    if bias is None:
        return None
    padded = torch.zeros(-(-len(bias) // WIDTH) * WIDTH)
    padded[: len(bias)] = bias
    return padded
