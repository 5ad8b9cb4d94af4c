"""The activations of a step: memory that all layers and steps share, in every shape that a layer uses it in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.attention import AttentionBuffers
from pie_engine.model.description import ModelConfig


@dataclass(frozen=True, slots=True)
class Views:
    """The buffers of a step of a given size, in every shape that a layer uses them in."""

    normed: Tensor
    qkv: Tensor
    qkv32: Tensor
    qk_rows: tuple[Tensor, ...]
    """What the query and key norms of a block run over, in `qkv32`."""
    pairs: Tensor
    rotated: Tensor
    gate_up: Tensor
    gate: Tensor
    up: Tensor
    inner: Tensor
    attention: AttentionBuffers


class Buffers:
    """The activations of a layer for up to `max_tokens` tokens; all layers and steps use the same memory."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._config = config
        num_all = config.num_heads + 2 * config.num_kv_heads
        num_rotated = config.num_heads + config.num_kv_heads
        size = num_all * config.head_dim
        self._normed = torch.empty(max_tokens, config.hidden_size, dtype=dtype)
        self._qkv = torch.empty(max_tokens, size, dtype=dtype)
        self._qkv32 = self._qkv if dtype == torch.float32 else torch.empty(max_tokens, size)
        self._rotated = torch.empty(max_tokens, num_rotated, config.head_dim)
        self._gate_up = torch.empty(max_tokens, sum(config.gate_up_sizes), dtype=dtype)
        self._inner = torch.empty(max_tokens, config.intermediate_size, dtype=dtype)
        self._attended = torch.empty(max_tokens, config.num_heads * config.head_dim)
        self._views: Views | None = None

    def views(self, num_tokens: int) -> Views:
        """The views of the last size are kept: decoding asks for the same one step after step."""
        if self._views is None or len(self._views.normed) != num_tokens:
            self._views = self._make_views(num_tokens)
        return self._views

    def _make_views(self, num_tokens: int) -> Views:
        config, num_heads = self._config, self._config.num_heads
        num_rotated = num_heads + config.num_kv_heads
        qkv = self._qkv[:num_tokens]
        qkv32 = qkv if self._qkv32 is self._qkv else self._qkv32[:num_tokens]
        heads = qkv32.view(num_tokens, -1, config.head_dim)
        rotated, gate_up = self._rotated[:num_tokens], self._gate_up[:num_tokens]
        return Views(
            normed=self._normed[:num_tokens],
            qkv=qkv,
            qkv32=qkv32,
            qk_rows=self._qk_rows(qkv32),
            pairs=_as_pairs(heads[:, :num_rotated]),
            rotated=_as_pairs(rotated),
            gate_up=gate_up,
            gate=gate_up[:, : config.intermediate_size],
            up=gate_up[:, config.intermediate_size :],
            inner=self._inner[:num_tokens],
            attention=AttentionBuffers(
                queries=rotated[:, :num_heads],
                keys=rotated[:, num_heads:],
                values=heads[:, num_rotated:],
                flat_values=qkv32[:, num_rotated * config.head_dim :],
                out=self._attended[:num_tokens],
            ),
        )

    def _qk_rows(self, qkv32: Tensor) -> tuple[Tensor, ...]:
        config = self._config
        query = config.num_heads * config.head_dim
        end = query + config.num_kv_heads * config.head_dim
        if config.norms_whole_projection:
            return qkv32[:, :query], qkv32[:, query:end]
        return (qkv32[:, :end].view(len(qkv32), -1, config.head_dim),)


def _as_pairs(heads: Tensor) -> Tensor:
    return torch.view_as_complex(heads.view(*heads.shape[:-1], -1, 2))
