"""Matrix products whose rows get the same bits in any company.

A library chooses its way to multiply by the shapes, and ways round differently; within one way, a row's bits are its
own. Which numbers of rows go one way is measured here, when a model is loaded; products then keep to such numbers: too
few rows are filled up with zeros, too many are multiplied in blocks
(https://thinkingmachines.ai/blog/defeating-nondeterminism-in-llm-inference/ says why shapes are all that matters).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pie_engine.model.layers import AnyLinear, Linear
from pie_engine.model.lora.weights import Adapter, LowRank

Product = Callable[[Tensor], Tensor]

_MOST = (64, 32, 16, 8)
"""How many rows a block may have, at best. More of them gain nothing."""
_TRIED = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 24, 31, 32, 33, 47, 48, 63, 64)
_FEW = 2
"""A decode step with one sequence should not have to multiply many rows of nothing."""
_NUM_DIFFERENT_OUTPUTS = 256
_SMALL = 1e-5
"""As rounding is: a bias of that size neither hides it nor is lost in it."""
_ALIGNMENT = 64
"""Bytes of a cache line and of the widest registers."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Numbers of rows `least … most` give each row the same bits."""

    least: int
    most: int

    def blocks(self, num_rows: int) -> Iterator[slice]:
        """Cut `num_rows` into blocks of at most `most`."""
        for first in range(0, num_rows, self.most):
            yield slice(first, min(first + self.most, num_rows))


ONE_BY_ONE = Rows(1, 1)
"""Right for any product."""


@dataclass(frozen=True, slots=True)
class SteadyLinear:
    """Another linear, run so. Implements `layers.AnyLinear`."""

    linear: AnyLinear
    rows: Rows

    @property
    def shape(self) -> tuple[int, int]:
        return self.linear.shape

    def into(self, out: Tensor, x: Tensor) -> None:
        for block in self.rows.blocks(len(x)):
            part = x[block]
            if len(part) < self.rows.least:
                out[block] = self._filled_up(part)
            else:
                self.linear.into(out[block], part)

    def of(self, x: Tensor) -> Tensor:
        if len(x) <= self.rows.most:
            return self._filled_up(x) if 0 < len(x) < self.rows.least else self.linear.of(x)
        return torch.cat([self.of(x[block]) for block in self.rows.blocks(len(x))])

    def add_to(self, residual: Tensor, x: Tensor, scale: float = 1.0) -> None:
        """Never within the product: that may round otherwise."""
        residual.add_(self.of(x), alpha=scale)

    def _filled_up(self, x: Tensor) -> Tensor:
        rows = x.new_zeros(self.rows.least, x.shape[1])
        rows[: len(x)] = x
        return self.linear.of(rows)[: len(x)]


@dataclass(frozen=True, slots=True)
class SteadyLowRank(LowRank):
    """Matrices of an adapter, multiplied so."""

    down: SteadyLinear
    up: SteadyLinear

    def of(self, x: Tensor) -> Tensor:
        return self.up.of(self.down.of(x))


class SteadyProducts:
    """Makes linears steady; of those that the library must treat alike, one is measured."""

    def __init__(self) -> None:
        self._known: dict[object, Rows] = {}

    def linear(self, linear: AnyLinear) -> SteadyLinear:
        key: tuple[object, ...] = (type(linear), linear.shape)
        if isinstance(linear, Linear):
            weight = linear.weight
            key += (weight.stride(), weight.dtype, weight.data_ptr() % _ALIGNMENT, linear.bias is None)
        if key not in self._known:
            self._known[key] = _measured(linear)
        return SteadyLinear(linear, self._known[key])

    def adapter(self, adapter: Adapter) -> Adapter:
        """The same adapter, with steady products."""
        parts = {place: tuple(map(self._low_rank, parts)) for place, parts in adapter.parts.items()}
        return Adapter(adapter.adapter_id, parts)

    def _low_rank(self, part: LowRank) -> SteadyLowRank:
        down, up = self.linear(Linear(part.a)), self.linear(Linear(part.b))
        return SteadyLowRank(part.first_output, part.a, part.b, down, up)


def _measured(linear: AnyLinear) -> Rows:
    num_inputs, _ = linear.shape
    if isinstance(linear, Linear):
        return steady_rows(noisy_twin(linear).of, _noisy_rows(num_inputs, linear.weight.dtype))
    return steady_rows(linear.of, torch.randn(_MOST[0], num_inputs, generator=_generator()))


def odd_width(widths: Iterable[int], dtype: torch.dtype) -> str | None:
    """What is wrong with activation functions of rows so wide, if anything is.

    Rows that lie side by side are worked through as one, in portions of two registers; what is left at the end goes
    through another function, which rounds otherwise.
    """
    portion = 2 * _ALIGNMENT // dtype.itemsize
    odd = [width for width in widths if width % portion]
    return f"it has activations {min(odd)} wide, which is no multiple of {portion}" if odd else None


def steady_rows(product: Product, x: Tensor) -> Rows:
    """Which numbers of rows of `x` [most, inputs] `product` gives the same bits."""
    found = [rows for most in _MOST if (rows := _least(product, x[:most])) is not None]
    few = [rows for rows in found if rows.least <= _FEW]
    return few[0] if few else min(found, key=lambda rows: rows.least, default=ONE_BY_ONE)


def _least(product: Product, x: Tensor) -> Rows | None:
    """The longest range of numbers that ends at that of the rows of `x`; None if not even that one is steady."""
    most, whole = len(x), product(x)
    if not torch.equal(product(x.flip(0)).flip(0), whole):
        return None
    least = most
    for num_rows in sorted((size for size in _TRIED if size < most), reverse=True):
        for first in {0, most - num_rows, (most - num_rows) // 2}:
            if not torch.equal(product(x[first : first + num_rows]), whole[first : first + num_rows]):
                return Rows(least, most)
        least = num_rows
    return Rows(least, most)


def noisy_twin(linear: Linear) -> Linear:
    """A linear that the library cannot tell from `linear`, whose products with `noisy_rows` are nothing but rounding.

    Each weight is there twice and its input once with either sign, in another order: the exact product is zero. What
    remains shows every difference in how it was added up, also where results are rounded to bf16.
    """
    weight = linear.weight
    num_inputs, num_outputs = weight.shape
    half = torch.randn(num_inputs // 2, min(num_outputs, _NUM_DIFFERENT_OUTPUTS), generator=_generator())
    twice = torch.zeros(num_inputs, half.shape[1])
    twice[: len(half) * 2] = half.repeat(2, 1)
    columns = torch.arange(num_outputs) % half.shape[1]
    twin = torch.empty_strided(weight.shape, weight.stride(), dtype=weight.dtype)
    twin.copy_(twice[_order(num_inputs)].to(weight.dtype)[:, columns])
    bias = None if linear.bias is None else torch.randn(num_outputs, generator=_generator()).mul_(_SMALL)
    return replace(linear, weight=twin, bias=None if bias is None else bias.to(weight.dtype))


def _noisy_rows(num_inputs: int, dtype: torch.dtype) -> Tensor:
    half = torch.randn(_MOST[0], num_inputs // 2, generator=_generator())
    x = torch.zeros(_MOST[0], num_inputs)
    x[:, : half.shape[1] * 2] = torch.cat([half, -half], dim=1)
    return x[:, _order(num_inputs)].to(dtype)


def _order(num_inputs: int) -> Tensor:
    return torch.randperm(num_inputs, generator=_generator())


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)
