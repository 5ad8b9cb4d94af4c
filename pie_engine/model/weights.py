"""Weights from safetensors into fused buffers, one tensor at a time, so that loading never holds them twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pie_engine.errors import ModelError
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.layers import AnyLinear, Linear
from pie_engine.model.quantization import HEAD_KIND, Quantization, can_quantize
from pie_engine.model.quantized import QuantizedLinear, quantized
from pie_engine.model.quants import Quants

_HEAD_ROWS = 8192


class WeightReader:
    """Reads the tensors of a checkpoint in the dtype that the engine computes in."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        quantize: Quantization = "none",
        *,
        keeps_quants: bool = False,
    ) -> None:
        """`quantize` is for the linears; what they cannot take stays in `dtype`.

        With `keeps_quants` linears of few bits are `QuantizedLinear`s: plain tensors, for kernels that pack them; and
        what a GGUF file has in few bits is not turned into numbers.
        """
        self.dtype = dtype
        self._quantize, self._keeps_quants = quantize, keeps_quants
        self._checkpoint = checkpoint
        self._files: dict[Path, Any] = {}

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A copy of one tensor."""
        return self.stored(name).to(dtype or self.dtype, copy=True).contiguous()

    def linear(
        self, names: Sequence[str], *, has_bias: bool, order: Tensor | None = None, may_quantize: bool = True
    ) -> AnyLinear:
        """The projections `names` side by side as one linear.

        Output i of the result is output `order[i]` of what the checkpoint has; no output moves to another projection.
        """
        if any(self._kept_kind(f"{name}.weight") for name in names):
            return self._kept(names, has_bias=has_bias, order=order)
        sizes = [self._checkpoint.tensors[f"{name}.weight"].shape for name in names]
        num_inputs, num_outputs = sizes[0][1], sum(size[0] for size in sizes)
        weight = torch.empty(num_inputs, num_outputs, dtype=self.dtype)
        bias = torch.empty(num_outputs, dtype=self.dtype) if has_bias else None
        first = 0
        for name, size in zip(names, sizes, strict=True):
            columns = slice(first, first + size[0])
            rows = slice(None) if order is None else order[columns] - first
            weight[:, columns] = self.stored(f"{name}.weight")[rows].t()
            if bias is not None:
                bias[columns] = self.stored(f"{name}.bias")[rows]
            first += size[0]
        if may_quantize and can_quantize(self._quantize, num_inputs, num_outputs):
            linear = QuantizedLinear((quantized(self._quantize, weight.t()),), bias)
            return linear if self._keeps_quants else linear.packed_by_torch()
        return Linear(weight, bias)

    def table(self, name: str) -> Quants | Tensor:
        """A matrix, as quants if it is kept in few bits and as numbers otherwise."""
        if not self._kept_kind(name):
            return self.tensor(name)
        from pie_engine.model.gguf_file.weights import read_quants

        info = self._checkpoint.tensors[name]
        return read_quants(info.file, info.dtype, info.shape, info.start, info.end, pairs=info.pairs)

    def head(self, name: str) -> Quants | Tensor:
        """The matrix of the logits, which may be that of the embedding: of fewer bits if the linears are."""
        table = self.table(name)
        if self._quantize == "none" or isinstance(table, Quants):
            return table
        # In parts, because each is fp32 for a moment.
        parts = (table[first : first + _HEAD_ROWS] for first in range(0, len(table), _HEAD_ROWS))
        return Quants.side_by_side([quantized(HEAD_KIND, part) for part in parts])

    def _kept(self, names: Sequence[str], *, has_bias: bool, order: Tensor | None) -> QuantizedLinear:
        parts: list[Quants | Tensor] = []
        biases: list[Tensor] = []
        first = 0
        for name in names:
            part = self.table(f"{name}.weight")
            num_outputs = part.num_outputs if isinstance(part, Quants) else len(part)
            rows = torch.arange(num_outputs) if order is None else order[first : first + num_outputs] - first
            if order is not None:
                part = part.select(rows) if isinstance(part, Quants) else part[rows]
            parts.append(part)
            if has_bias:
                biases.append(self.stored(f"{name}.bias")[rows].to(self.dtype))
            first += num_outputs
        return QuantizedLinear.side_by_side(parts, torch.cat(biases) if has_bias else None)

    def _kept_kind(self, name: str) -> str | None:
        is_kept = self._keeps_quants and self._quantize == "none"
        return self._checkpoint.kept_kind(name) if is_kept else None

    def stored(self, name: str) -> Tensor:
        """The tensor as it lies in the file, mapped rather than read."""
        info = self._checkpoint.tensors[name]
        path = info.file
        if path.suffix == ".gguf":
            from pie_engine.model.gguf_file.weights import read_tensor

            return read_tensor(path, info.dtype, info.shape, info.start, info.end, pairs=info.pairs, add=info.add)
        try:
            if path not in self._files:
                self._files[path] = safe_open(path, framework="pt")
            tensor: Tensor = self._files[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: cannot read tensor {name}: {error}", hint="download the model again") from error
        return tensor
