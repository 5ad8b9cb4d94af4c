"""The Llama family: pre-norm blocks of grouped-query attention with rotary positions and a gated SiLU MLP.

Its tensor names and sizes are `checkpoint.expected_tensors`; Mistral has the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_engine.model.attention import AttentionBuffers, AttentionPlan, HeadShape, KvCache, LayerKv, Span
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.config import ModelConfig
from pie_engine.model.layers import Linear, RMSNorm, Rope, interleave_pairs
from pie_engine.model.weights import WeightReader


@dataclass(frozen=True, slots=True)
class Block:
    """One layer's weights."""

    attention_norm: RMSNorm
    qkv: Linear
    attention_out: Linear
    mlp_norm: RMSNorm
    gate_up: Linear
    down: Linear


class Llama:
    """The weights, and the forward pass over the rows of a step."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        config = checkpoint.config
        self.config, self.dtype = config, dtype
        self.heads = HeadShape(config.num_heads, config.num_kv_heads, config.head_dim)
        self._rope = Rope(config.rope, config.head_dim)
        reader = WeightReader(checkpoint, dtype)
        self._embedding = reader.tensor("model.embed_tokens.weight")
        self._blocks = [self._read_block(reader, layer) for layer in range(config.num_layers)]
        self._norm = RMSNorm(reader.tensor("model.norm.weight", torch.float32), config.rms_norm_eps)
        self._head = self._embedding if config.tie_embeddings else reader.tensor("lm_head.weight")
        self._scales = _query_scales(self.heads)
        self._buffers = Buffers(config, dtype, max_tokens=1)

    def new_cache(self, num_pages: int, page_size: int) -> KvCache:
        return KvCache(self.config.num_layers, num_pages, page_size, self.heads)

    @torch.inference_mode()
    def forward(self, spans: Sequence[Span], tokens: Sequence[int], cache: KvCache, wanted: Sequence[int]) -> Tensor:
        """Run `tokens` through the model, write their KV, and return the logits [len(wanted), vocab] in fp32.

        `spans` are in the order of `attention.row_order`; `wanted` are indices into `tokens`.
        """
        views = self._buffers_for(len(tokens)).views(len(tokens))
        positions = [position for span in spans for position in range(span.start, span.end)]
        rotations = self._rope.rotations(positions).unsqueeze(1) * self._scales
        plan = AttentionPlan(spans, views.attention, cache)
        hidden = torch.embedding(self._embedding, torch.tensor(tokens)).float()
        for layer, block in enumerate(self._blocks):
            self._run_block(block, hidden, views, rotations, plan, cache.layer(layer))
        return self._logits(hidden, wanted)

    def _run_block(
        self, block: Block, hidden: Tensor, views: Views, rotations: Tensor, plan: AttentionPlan, kv: LayerKv
    ) -> None:
        block.attention_norm.into(views.normed, hidden)
        block.qkv.into(views.qkv, views.normed)
        if views.qkv32 is not views.qkv:
            views.qkv32.copy_(views.qkv)
        torch.mul(views.pairs, rotations, out=views.rotated)
        block.attention_out.add_to(hidden, plan.attend(kv).to(self.dtype))
        block.mlp_norm.into(views.normed, hidden)
        block.gate_up.into(views.gate_up, views.normed)
        torch.mul(torch.nn.functional.silu(views.gate), views.up, out=views.inner)
        block.down.add_to(hidden, views.inner)

    def _logits(self, hidden: Tensor, wanted: Sequence[int]) -> Tensor:
        last = hidden[torch.tensor(wanted, dtype=torch.int64)]
        normed = torch.empty_like(last, dtype=self.dtype)
        self._norm.into(normed, last)
        return torch.mm(normed, self._head.t()).float()

    def _buffers_for(self, num_tokens: int) -> Buffers:
        if num_tokens > self._buffers.max_tokens:
            self._buffers = Buffers(self.config, self.dtype, num_tokens)
        return self._buffers

    def _read_block(self, reader: WeightReader, layer: int) -> Block:
        config, prefix = self.config, f"model.layers.{layer}."
        pairs = functools.partial(interleave_pairs, head_dim=config.head_dim)

        def norm(name: str) -> RMSNorm:
            return RMSNorm(reader.tensor(f"{prefix}{name}.weight", torch.float32), config.rms_norm_eps)

        def attention(*names: str) -> list[str]:
            return [f"{prefix}self_attn.{name}_proj" for name in names]

        def mlp(*names: str) -> list[str]:
            return [f"{prefix}mlp.{name}_proj" for name in names]

        return Block(
            attention_norm=norm("input_layernorm"),
            qkv=reader.linear(attention("q", "k", "v"), has_bias=config.attention_bias, reorder=[pairs, pairs, None]),
            attention_out=reader.linear(attention("o"), has_bias=config.attention_bias),
            mlp_norm=norm("post_attention_layernorm"),
            gate_up=reader.linear(mlp("gate", "up"), has_bias=config.mlp_bias),
            down=reader.linear(mlp("down"), has_bias=config.mlp_bias),
        )


@dataclass(frozen=True, slots=True)
class Views:
    """The buffers of a step of a given size, in every shape that a layer uses them in."""

    normed: Tensor
    qkv: Tensor
    qkv32: Tensor
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
        self._gate_up = torch.empty(max_tokens, 2 * config.intermediate_size, dtype=dtype)
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


def _as_pairs(heads: Tensor) -> Tensor:
    return torch.view_as_complex(heads.view(*heads.shape[:-1], -1, 2))


def _query_scales(shape: HeadShape) -> Tensor:
    """1/sqrt(head_dim) for query heads and 1 for key heads [heads + kv_heads, 1]: rotating also scales the scores."""
    scales = torch.ones(shape.num_heads + shape.num_kv_heads, 1, dtype=torch.complex64)
    scales[: shape.num_heads] = 1 / math.sqrt(shape.head_dim)
    return scales
