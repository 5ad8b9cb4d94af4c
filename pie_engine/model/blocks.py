"""The weights of a decoder's layers as plain data, and how they come from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pie_engine.model.description import ModelConfig, RopeConfig
from pie_engine.model.experts import Experts, Mlp
from pie_engine.model.layers import AnyLinear, AnyNorm, LayerNorm, RMSNorm
from pie_engine.model.packed import StackedExperts
from pie_engine.model.rope import pair_order
from pie_engine.model.weights import WeightReader


@dataclass(frozen=True, slots=True)
class Block:
    """One layer's weights. A norm that the family does not have is None."""

    attention_norm: AnyNorm | None
    qkv: AnyLinear
    """Queries, keys and values side by side; queries and keys in `rope.pair_order`."""
    qk_norms: tuple[RMSNorm, ...]
    """One over each head of queries and keys; or one over all queries and one over all keys; or none."""
    rope: int
    """Which of the model's ropes."""
    window: int | None
    sinks: Tensor | None
    """Scores [heads] of attention sinks."""
    attention_out: AnyLinear
    attention_post_norm: AnyNorm | None
    mlp_norm: AnyNorm | None
    mlp: Mlp | Experts
    mlp_post_norm: AnyNorm | None

    def with_linears(self, change: Callable[[AnyLinear], AnyLinear]) -> Block:
        """With another one in place of each linear."""
        return replace(
            self,
            qkv=change(self.qkv),
            attention_out=change(self.attention_out),
            mlp=self.mlp.with_linears(change),
        )


def qkv_order(config: ModelConfig) -> Tensor:
    """Where each output of the projection of queries, keys and values comes from: queries and keys in `pair_order`."""
    fractions = {layer.rope.rotated_dim(config.head_dim) for layer in config.layers if layer.rope is not None}
    assert len(fractions) <= 1, "layers that rotate different parts of a head"
    rotated_dim = 0 if config.rotates_neighbours else max(fractions, default=0)
    rotated = pair_order(config.num_heads + config.num_kv_heads, config.head_dim, rotated_dim)
    values = torch.arange(len(rotated), len(rotated) + config.num_kv_heads * config.head_dim)
    order = torch.cat([rotated, values])
    if not config.interleaves_heads:
        return order
    by_head = torch.arange(len(order)).view(config.num_heads, 3, config.head_dim)
    return by_head.transpose(0, 1).reshape(-1)[order]


class BlockReader:
    """Reads the layers of a checkpoint."""

    def __init__(self, reader: WeightReader, config: ModelConfig) -> None:
        self.ropes: list[RopeConfig | None] = list(dict.fromkeys(layer.rope for layer in config.layers))
        """The different ones."""
        self._reader, self._config = reader, config
        self._order = qkv_order(config)

    def norm(self, name: str) -> AnyNorm:
        config, weight = self._config, self._norm_weight(name)
        if not config.centers_norms:
            return RMSNorm.of(weight, config.norm_eps)
        bias = self._reader.tensor(f"{name}.bias", torch.float32) if config.norm_bias else None
        return LayerNorm(weight, bias, config.norm_eps)

    def block(self, index: int) -> Block:
        config, names, layer = self._config, self._config.names, self._config.layers[index]
        prefix = names.layer(index)

        def norm(name: str | None) -> AnyNorm | None:
            return None if name is None else self.norm(prefix + name)

        return Block(
            attention_norm=norm(names.attention_norm),
            qkv=self._qkv(prefix),
            qk_norms=self._qk_norms(prefix),
            rope=self.ropes.index(layer.rope),
            window=layer.window,
            sinks=None if names.sinks is None else self._reader.tensor(prefix + names.sinks, torch.float32),
            attention_out=self._reader.linear([prefix + names.attention_out], has_bias=config.attention_out_bias),
            attention_post_norm=norm(names.attention_post_norm),
            mlp_norm=norm(names.mlp_norm),
            mlp=self._experts(prefix) if layer.has_experts else self._mlp(prefix),
            mlp_post_norm=norm(names.mlp_post_norm),
        )

    def _qkv(self, prefix: str) -> AnyLinear:
        names = [prefix + name for name in self._config.names.qkv]
        return self._reader.linear(names, has_bias=self._config.qkv_bias, order=self._order)

    def _qk_norms(self, prefix: str) -> tuple[RMSNorm, ...]:
        config, names = self._config, self._config.names
        if names.query_norm is None or names.key_norm is None:
            return ()
        query, key = (self._norm_weight(prefix + name) for name in (names.query_norm, names.key_norm))
        if config.norms_whole_projection:
            weights = [query[self._order[: len(query)]], key[self._order[: len(key)]]]
        else:
            heads = [query.expand(config.num_heads, -1), key.expand(config.num_kv_heads, -1)]
            weights = [torch.cat(heads)[:, self._order[: config.head_dim]]]
        return tuple(RMSNorm.of(weight, config.norm_eps) for weight in weights)

    def _mlp(self, prefix: str) -> Mlp:
        config, names = self._config, self._config.names
        return Mlp(
            gate_up=self._reader.linear([prefix + name for name in names.gate_up], has_bias=config.mlp_bias),
            down=self._reader.linear([prefix + names.down], has_bias=config.mlp_bias),
        )

    def _experts(self, prefix: str) -> Experts:
        config, names, read = self._config.experts, self._config.names, self._reader.linear
        assert config is not None, "a layer with experts, but no description of them"

        def expert(number: int) -> Mlp:
            one = f"{prefix}{names.expert}.{number}."
            gate_up = read([one + name for name in names.expert_gate_up], has_bias=config.has_bias)
            return Mlp(gate_up, down=read([one + names.expert_down], has_bias=config.has_bias))

        if config.is_stacked:
            stacked = StackedExperts(self._reader, f"{prefix}{names.expert}.", names, config)
        return Experts(
            # Small, and an error in it is another expert.
            router=read([prefix + names.router], has_bias=config.has_bias, may_quantize=False),
            experts=tuple(map(stacked.expert if config.is_stacked else expert, range(config.num_experts))),
            num_active=config.num_active,
            normalize=config.normalize,
        )

    def _norm_weight(self, name: str) -> Tensor:
        return self._reader.tensor(f"{name}.weight", torch.float32) + self._config.norm_offset
