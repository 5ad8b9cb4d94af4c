"""The low-rank matrices of an adapter in memory, laid out for the projections as they are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pie_engine.errors import ModelError
from pie_engine.model.blocks import qkv_order
from pie_engine.model.description import ModelConfig
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.model.lora.layout import Part, Projection, layout_of


@dataclass(frozen=True, slots=True)
class LowRank:
    """Adds `x a b` to the outputs from `first_output` on; the adapter's scale is in `b`."""

    first_output: int
    a: Tensor
    """[inputs, rank]"""
    b: Tensor
    """[rank, outputs]"""

    @property
    def columns(self) -> slice:
        return slice(self.first_output, self.first_output + self.b.shape[1])

    def of(self, x: Tensor) -> Tensor:
        """What it adds to those columns for `x` [tokens, inputs]."""
        return torch.mm(torch.mm(x, self.a), self.b)


@dataclass(frozen=True, slots=True)
class Adapter:
    """All of an adapter, by layer and projection."""

    adapter_id: str
    parts: Mapping[tuple[int, Projection], tuple[LowRank, ...]]


def read_adapter(files: AdapterFiles, config: ModelConfig, dtype: torch.dtype) -> Adapter:
    """In `dtype`. Raises `ModelError` or `Unsupported`, naming the tensor."""
    layout = layout_of(files, config)
    order = qkv_order(config)
    try:
        with safe_open(files.weights, framework="pt") as file:
            parts = {
                (layer, projection): tuple(
                    _low_rank(file, part, order if projection == "qkv" else None, dtype) for part in found
                )
                for (layer, projection), found in layout.items()
            }
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{files.weights} cannot be read: {error}", hint="copy the adapter again") from error
    return Adapter(files.adapter_id, parts)


def _low_rank(file: Any, part: Part, order: Tensor | None, dtype: torch.dtype) -> LowRank:
    a, b = file.get_tensor(part.a).float(), file.get_tensor(part.b).float() * part.scale
    if order is not None:
        b = b[order[part.first_output : part.first_output + part.num_outputs] - part.first_output]
    return LowRank(part.first_output, a.t().to(dtype).contiguous(), b.t().to(dtype).contiguous())
