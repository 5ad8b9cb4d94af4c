"""What the rows of a step get from their adapters, in plain torch: each adapter's rows together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.lora.layout import Projection
from pie_engine.model.lora.weights import Adapter
from pie_engine.model.span import Span


@dataclass(frozen=True, slots=True)
class AdaptedRows:
    """The rows of a step that have adapters, by adapter."""

    groups: tuple[tuple[Adapter, Tensor], ...]
    """With the numbers of its rows."""

    @classmethod
    def of(cls, spans: Sequence[Span], adapters: Mapping[str, Adapter]) -> AdaptedRows | None:
        """None when no row has one."""
        rows: dict[str, list[int]] = {}
        for span in spans:
            if span.adapter:
                rows.setdefault(span.adapter, []).extend(range(span.first, span.first + span.length))
        if not rows:
            return None
        return cls(tuple((adapters[adapter_id], torch.tensor(numbers)) for adapter_id, numbers in rows.items()))

    def layer(self, layer: int) -> AdaptedLayer:
        return AdaptedLayer(self.groups, layer)


@dataclass(frozen=True, slots=True)
class AdaptedLayer:
    """The same in one layer."""

    groups: tuple[tuple[Adapter, Tensor], ...]
    number: int

    def add(self, projection: Projection, x: Tensor, out: Tensor, scale: float = 1.0) -> None:
        """Add what the adapters make of `x` [tokens, inputs] to `out` [tokens, outputs], `scale` times."""
        for adapter, rows in self.groups:
            parts = adapter.parts.get((self.number, projection), ())
            inputs = x[rows] if parts else x
            for part in parts:
                out[:, part.columns].index_add_(0, rows, part.of(inputs).to(out.dtype), alpha=scale)
