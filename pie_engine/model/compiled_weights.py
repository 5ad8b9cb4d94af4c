"""The weights of a decoder's layers in the layout of the compiled kernels.

Kernels work on whole vectors, so heads whose size is no multiple of one are filled up with zeros: rows of the query,
key and value projections, weights of the norms over heads, and columns of the projection after attention. Zeros change
no score and no sum, so the results are those of the heads as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.blocks import Block
from pie_engine.model.description import ModelConfig
from pie_engine.model.experts import Experts
from pie_engine.model.kernels import codes
from pie_engine.model.kernels.packed import (
    AnyExperts,
    AnyPacked,
    ExpertsSideBySide,
    PackedExperts,
    PackedLinear,
    SideBySide,
)
from pie_engine.model.kernels.program import Program, row_bytes
from pie_engine.model.kernels.support import whole_vectors
from pie_engine.model.layers import AnyLinear, AnyNorm, LayerNorm, Linear, RMSNorm
from pie_engine.model.quantized import QuantizedLinear
from pie_engine.model.quants import Quants


@dataclass(frozen=True, slots=True)
class Norm:
    """An RMS norm over each row, or with `scale` [heads, size] over each head, of which `count` numbers are none that
    rows were filled up with. With a `bias` it takes the mean away first."""

    scale: Tensor
    eps: float
    count: int
    bias: Tensor | None = None

    def into(self, steps: Program, x: Tensor, out: Tensor) -> None:
        """Append out = norm(x); over heads in place."""
        factors = (self.eps, float(self.count))
        size = self.scale.shape[-1]
        if self.bias is not None:
            steps.add(codes.LAYER_NORM, x, size, self.scale, self.bias, out, row_bytes(out), factors=factors)
        elif self.scale.dim() == 2:
            steps.add(codes.HEAD_NORM, x, size, self.scale, len(self.scale), factors=factors)
        else:
            steps.add(codes.RMS_NORM, x, size, self.scale, out, row_bytes(out), factors=factors)


@dataclass(frozen=True, slots=True)
class PackedMlp:
    """An MLP: gate and up projection side by side, or one of them."""

    gate_up: AnyPacked
    down: AnyPacked


@dataclass(frozen=True, slots=True)
class PackedMixture:
    """A router and its experts."""

    router: AnyPacked
    gate_up: AnyExperts
    down: AnyExperts
    num_active: int
    normalize: bool


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """`blocks.Block` in the layout of the kernels."""

    attention_norm: Norm | None
    qkv: AnyPacked
    qk_norms: tuple[Norm, ...]
    rope: int
    window: int | None
    sinks: Tensor | None
    attention_out: AnyPacked
    attention_post_norm: Norm | None
    mlp_norm: Norm | None
    mlp: PackedMlp | PackedMixture
    mlp_post_norm: Norm | None

    @classmethod
    def of(cls, block: Block, config: ModelConfig) -> PackedBlock:
        """`config` is the checkpoint's."""
        size, mlp = config.head_dim, block.mlp
        return cls(
            attention_norm=_norm(block.attention_norm),
            qkv=_packed(_by_head(block.qkv, size)),
            qk_norms=tuple(_head_norm(norm, size) for norm in block.qk_norms),
            rope=block.rope,
            window=block.window,
            sinks=block.sinks,
            attention_out=_packed(_from_head(block.attention_out, size)),
            attention_post_norm=_norm(block.attention_post_norm),
            mlp_norm=_norm(block.mlp_norm),
            mlp=_mixture(mlp) if isinstance(mlp, Experts) else PackedMlp(_packed(mlp.gate_up), _packed(mlp.down)),
            mlp_post_norm=_norm(block.mlp_post_norm),
        )


def norm_of(norm: AnyNorm) -> Norm:
    """Over rows; in whole vectors."""
    if isinstance(norm, LayerNorm):
        bias = torch.zeros_like(norm.weight) if norm.bias is None else norm.bias
        return Norm(_padded(norm.weight), norm.eps, len(norm.weight), _padded(bias))
    size = norm.scale.shape[-1]
    return Norm(_padded(norm.scale / math.sqrt(size)), float(norm.eps_sum) / size, size)


def _norm(norm: AnyNorm | None) -> Norm | None:
    return None if norm is None else norm_of(norm)


def _head_norm(norm: RMSNorm, head_dim: int) -> Norm:
    """Over each head, or over all of a projection."""
    size = norm.scale.shape[-1]
    scale = _padded((norm.scale / math.sqrt(size)).view(-1, head_dim))
    return Norm(scale if norm.scale.dim() == 2 else scale.view(-1), float(norm.eps_sum) / size, size)


def _mixture(experts: Experts) -> PackedMixture:
    def packed(linears: Iterable[AnyLinear]) -> AnyExperts:
        """All are cut alike, since each kind of weights is that of one tensor with all experts."""
        all_packed = [_packed(linear) for linear in linears]
        split = [linear for linear in all_packed if isinstance(linear, SideBySide)]
        if split:
            return ExpertsSideBySide.of(split)
        return PackedExperts.of([linear for linear in all_packed if isinstance(linear, PackedLinear)])

    return PackedMixture(
        router=_packed(experts.router),
        gate_up=packed(expert.gate_up for expert in experts.experts),
        down=packed(expert.down for expert in experts.experts),
        num_active=experts.num_active,
        normalize=experts.normalize,
    )


def _by_head(linear: AnyLinear, head_dim: int) -> AnyLinear:
    """With outputs in heads of whole vectors."""
    if whole_vectors(head_dim) == head_dim:
        return linear
    assert isinstance(linear, Linear), "`choose_kernels` has said so"
    bias = None if linear.bias is None else _padded(linear.bias.view(-1, head_dim)).view(-1)
    return Linear(_padded(linear.weight.view(len(linear.weight), -1, head_dim)).flatten(1), bias)


def _from_head(linear: AnyLinear, head_dim: int) -> AnyLinear:
    """With inputs in heads of whole vectors."""
    if whole_vectors(head_dim) == head_dim:
        return linear
    assert isinstance(linear, Linear), "`choose_kernels` has said so"
    return Linear(_padded(linear.weight.t().reshape(linear.weight.shape[1], -1, head_dim)).flatten(1).t(), linear.bias)


def _side_by_side(linear: QuantizedLinear) -> AnyPacked:
    parts: list[PackedLinear] = []
    first = 0
    for part in linear.parts:
        end = first + (part.num_outputs if isinstance(part, Quants) else len(part))
        parts.append(PackedLinear.of_table(part, None if linear.bias is None else linear.bias[first:end]))
        first = end
    return parts[0] if len(parts) == 1 else SideBySide(tuple(parts))


def _packed(linear: AnyLinear) -> AnyPacked:
    return _side_by_side(linear) if isinstance(linear, QuantizedLinear) else _plain(linear)


def _plain(linear: AnyLinear) -> PackedLinear:
    assert isinstance(linear, Linear), linear
    return PackedLinear.of_rows(linear.weight.t(), linear.bias)


def _padded(rows: Tensor) -> Tensor:
    """With zeros up to whole vectors in the last dimension."""
    missing = whole_vectors(rows.shape[-1]) - rows.shape[-1]
    return torch.nn.functional.pad(rows, (0, missing)) if missing else rows
