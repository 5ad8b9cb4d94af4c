"""Adapters in the layout of the compiled kernels (`kernels.lora`), and the rows of a step that have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pie_engine.model.description import ModelConfig
from pie_engine.model.kernels import lora
from pie_engine.model.kernels.support import whole_vectors
from pie_engine.model.lora.layout import PROJECTIONS, Projection
from pie_engine.model.lora.weights import Adapter, LowRank
from pie_engine.model.span import Span


def site_of(layer: int, projection: Projection) -> int:
    return layer * len(PROJECTIONS) + PROJECTIONS.index(projection)


@dataclass(frozen=True, slots=True)
class PackedAdapter:
    """`sites` as the kernel has them, with the matrices that they point to."""

    sites: np.ndarray
    num_ranks: int
    """Most ranks of a site."""
    kept: tuple[Tensor, ...]

    @classmethod
    def of(cls, adapter: Adapter, config: ModelConfig) -> PackedAdapter:
        """`config` is the checkpoint's."""
        sites = np.zeros((config.num_layers * len(PROJECTIONS), lora.SITE_NUMBERS), np.int64)
        kept: list[Tensor] = []
        most = 0
        for (layer, projection), parts in adapter.parts.items():
            own = [_with_padded_heads(part, projection, config.head_dim) for part in parts]
            a = torch.cat([part.a.t() for part in own])
            num_ranks, num_inputs = len(a), a.shape[1]
            most = max(most, _whole_ranks(num_ranks))
            missing = (0, whole_vectors(num_inputs) - num_inputs, 0, _whole_ranks(num_ranks) - num_ranks)
            a = torch.nn.functional.pad(a, missing).contiguous()
            kept.append(a)
            entry = [a.data_ptr(), len(a), a.shape[1], len(own)]
            first_rank = 0
            for part in own:
                b = torch.nn.functional.pad(part.b, (0, whole_vectors(part.b.shape[1]) - part.b.shape[1])).contiguous()
                kept.append(b)
                entry += [first_rank, len(b), b.data_ptr(), part.first_output, b.shape[1]]
                first_rank += len(b)
            sites[site_of(layer, projection), : len(entry)] = entry
        return cls(sites, most, tuple(kept))


def segments_of(spans: Sequence[Span], adapters: Mapping[str, PackedAdapter]) -> np.ndarray | None:
    """`segments` as the kernel has them; None: nobody has an adapter."""
    found: list[list[int]] = []
    last = ""
    for span in spans:
        if span.adapter and span.adapter == last:
            found[-1][1] += span.length
        elif span.adapter:
            found.append([span.first, span.length, adapters[span.adapter].sites.ctypes.data])
        last = span.adapter
    return np.array(found, np.int64) if found else None


def _whole_ranks(num_ranks: int) -> int:
    return -(-num_ranks // lora.RANKS) * lora.RANKS


def _with_padded_heads(part: LowRank, projection: Projection, head_dim: int) -> LowRank:
    """Heads are filled up to whole vectors, as those of the weights are."""
    size = whole_vectors(head_dim)
    if size == head_dim or projection not in ("qkv", "attention_out"):
        return part

    def padded(rows: Tensor) -> Tensor:
        heads = rows.reshape(len(rows), -1, head_dim)
        return torch.nn.functional.pad(heads, (0, size - head_dim)).flatten(-2)

    if projection == "attention_out":
        return LowRank(part.first_output, padded(part.a.t()).t(), part.b)
    return LowRank(part.first_output // head_dim * size, part.a, padded(part.b))
