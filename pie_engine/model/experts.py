"""A mixture of experts (https://arxiv.org/abs/2401.04088): each token goes through the few MLPs that a router picks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from pie_engine.model.layers import AnyLinear


class Gated(Protocol):
    """What a gated MLP makes of its gate and up projections, written to `out` if there is one."""

    def __call__(self, gate: Tensor, up: Tensor, out: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Mlp:
    """A gated MLP."""

    gate_up: AnyLinear
    """Gate and up projection side by side."""
    down: AnyLinear

    def with_linears(self, change: Callable[[AnyLinear], AnyLinear]) -> Mlp:
        return Mlp(change(self.gate_up), change(self.down))


@dataclass(frozen=True, slots=True)
class Experts:
    """The router and the MLPs of one layer."""

    router: AnyLinear
    experts: tuple[Mlp, ...]
    num_active: int
    normalize: bool
    """Whether the weights of the chosen experts are scaled to sum to one."""

    def with_linears(self, change: Callable[[AnyLinear], AnyLinear]) -> Experts:
        experts = tuple(expert.with_linears(change) for expert in self.experts)
        return replace(self, router=change(self.router), experts=experts)

    def of(self, x: Tensor, gated: Gated) -> Tensor:
        """The weighted sum of what the chosen experts make of `x` [tokens, hidden], in fp32."""
        weights, chosen = self.router.of(x).float().softmax(-1).topk(self.num_active)
        if self.normalize:
            weights /= weights.sum(-1, keepdim=True)
        order = chosen.view(-1).argsort()  # the pairs of token and expert, by expert
        tokens = order // self.num_active
        inputs = x[tokens]
        outputs = torch.empty(inputs.shape)
        first = 0
        for expert, count in enumerate(chosen.view(-1).bincount().tolist()):
            if count:
                part = slice(first, first + count)
                gate, up = self.experts[expert].gate_up.of(inputs[part]).chunk(2, dim=-1)
                outputs[part] = self.experts[expert].down.of(gated(gate, up))
                first += count
        outputs *= weights.view(-1)[order].unsqueeze(1)
        return torch.zeros(x.shape).index_add_(0, tokens, outputs)
