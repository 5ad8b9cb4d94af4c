"""Steady products (`steady_products`) in a model of Transformers, whose layers call them by their modules."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pie_engine.model.layers import Linear
from pie_engine.model.steady_products import SteadyLinear, SteadyProducts, odd_width


def obstacle(model: Any, dtype: torch.dtype) -> str | None:
    """Why its products cannot all be kept steady, if so."""
    products = dict(_linears(model))
    for module in model.modules():
        is_other = module not in products and not isinstance(module, torch.nn.Embedding)
        if is_other and any(weight.dim() > 1 for weight in module.parameters(recurse=False)):
            return f"its {type(module).__name__} multiplies in a way of its own"
    head = model.get_output_embeddings()
    widths = [linear.shape[1] for module, linear in products.items() if module is not head]
    return odd_width(widths, dtype)


def keep_steady(model: Any, products: SteadyProducts | None) -> None:
    """None: as they are written again."""
    if products is None:
        for module, _ in _linears(model):
            module.__dict__.pop("forward", None)
        return
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    for module, _ in _linears(model):
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in tables:
            # The layout in which most numbers of rows are multiplied alike; the module sees the same matrix.
            module.weight.data = module.weight.data.t().contiguous().t()
    for module, linear in _linears(model):
        module.forward = _Forward(products.linear(linear))


class _Forward:
    """What such a module does instead."""

    def __init__(self, linear: SteadyLinear) -> None:
        self._linear = linear

    def __call__(self, x: Tensor) -> Tensor:
        return self._linear.of(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], self._linear.shape[1])


def _linears(model: Any) -> Iterator[tuple[Any, Linear]]:
    """Each module that is a matrix product and nothing else."""
    conv = importlib.import_module("transformers.pytorch_utils").Conv1D
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            yield module, Linear(module.weight.data.t(), None if module.bias is None else module.bias.data)
        elif type(module) is conv:
            yield module, Linear(module.weight.data, module.bias.data)
