"""A decoder-only model as plain data: sizes, switches, tensor names. No torch.

A family (`families/`) turns `config.json` into a `ModelConfig`; `tensors.py` says which tensors that model has, and
`decoder.py` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Kernels = Literal["compiled", "torch"]
"""What runs a model on the CPU."""


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding; fields after `theta` only matter where `kind` uses them.

    `kind` is `default`, `linear`, `llama3`, `yarn` or `longrope`. A rotation depends on the position alone, never on
    how long a sequence is by now, because rotated keys stay in pages that sequences share.
    """

    kind: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192
    rotated_fraction: float = 1.0
    """The first part of each head, which is rotated; the rest passes as it is."""
    attention_factor: float = 1.0
    """Queries and keys grow by this (`yarn`, `longrope`)."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    """`yarn`: whether its borders are whole dimensions."""
    factors: tuple[float, ...] = ()
    """`longrope`: the divisor of each frequency."""

    def rotated_dim(self, head_dim: int) -> int:
        return int(head_dim * self.rotated_fraction)


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """What layers of one model may differ in."""

    rope: RopeConfig | None = RopeConfig()
    """None: this layer does not look at positions (https://arxiv.org/abs/2305.19466)."""
    window: int | None = None
    """A token sees this many tokens, itself included; None: all before it."""
    has_experts: bool = False


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """A mixture of experts in place of an MLP: a router picks `num_active` of `num_experts` gated MLPs for a token."""

    num_experts: int
    num_active: int
    intermediate_size: int
    normalize: bool
    """Whether the weights of the chosen experts are scaled to sum to one."""
    is_stacked: bool = False
    """The file has all experts of a layer in one tensor, gate and up projection alternating (gpt-oss)."""
    is_packed: bool = False
    """Their weights are in MXFP4."""
    has_bias: bool = False
    """Of the router and of the experts."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a checkpoint calls its tensors, below `layers.N.` unless it says otherwise. None: there is no such tensor.

    `qkv` and `gate_up` are projections that are run as one; some checkpoints hold them as one.
    """

    embedding: str = "model.embed_tokens"
    """A whole name, as `final_norm`, `head` and `layers` are."""
    final_norm: str = "model.norm"
    head: str = "lm_head"
    layers: str = "model.layers"
    attention_norm: str | None = "input_layernorm"
    attention_post_norm: str | None = None
    mlp_norm: str | None = "post_attention_layernorm"
    mlp_post_norm: str | None = None
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    query_norm: str | None = None
    key_norm: str | None = None
    sinks: str | None = None
    attention_out: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    router: str = "mlp.gate"
    expert: str = "mlp.experts"
    """Its number and a name of `expert_gate_up` or `expert_down` follow; without the number if they are stacked."""
    expert_gate_up: tuple[str, ...] = ("gate_proj", "up_proj")
    expert_down: str = "down_proj"

    def layer(self, index: int) -> str:
        return f"{self.layers}.{index}."


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and switches of a decoder with grouped-query attention, and an MLP or experts."""

    architecture: str
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context_tokens: int
    norm_eps: float
    layers: tuple[LayerConfig, ...]
    tie_embeddings: bool
    dtype: str
    """The checkpoint's own dtype."""
    bos_id: int | None
    eos_ids: tuple[int, ...] = ()
    names: Names = field(default_factory=Names)
    other_names: tuple[Names, ...] = ()
    """What some checkpoints of the family call their tensors instead."""
    qkv_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False
    activation: str = "silu"
    """Of the gate: `silu`, `gelu` or `gelu_tanh`; `clamped_swiglu` is gpt-oss's, of gate and up projection."""
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0
    is_gated: bool = True
    """An MLP multiplies its activated gate projection by its up projection; otherwise there is one of them, which
    `Names.gate_up` names."""
    experts: ExpertsConfig | None = None
    query_scale: float | None = None
    """Attention scores are multiplied by this; None: 1/sqrt(head_dim)."""
    score_softcap: float | None = None
    """Attention scores x become cap·tanh(x/cap) (https://arxiv.org/abs/2408.00118)."""
    logit_softcap: float | None = None
    centers_norms: bool = False
    """Norms are those that take the mean away first (https://arxiv.org/abs/1607.06450), not RMS norms."""
    norm_bias: bool = False
    """Of the norms that are not over queries and keys."""
    is_parallel: bool = False
    """Attention and MLP both work on what comes into the layer; without `Names.mlp_norm` the MLP shares its norm."""
    head_bias: bool = False
    interleaves_heads: bool = False
    """The file has query, key and value of each head side by side, not of all heads."""
    norms_whole_projection: bool = False
    """Query and key norms run over all heads together, not over each."""
    rotates_neighbours: bool = False
    """The pairs that rotary positions turn are neighbours in the file; otherwise halves of a head."""
    norm_offset: float = 0.0
    """Added to the weights of all norms; 1 where the checkpoint stores their difference from 1."""
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    """What attention and MLP add to the residual stream is multiplied by this."""
    logit_scale: float = 1.0
    needs_transformers: bool = False
    """Pie has no family for it: Transformers runs it, and knows what is not said here."""
    has_own_attention: bool = False
    """Its attention is not Pie's (`transformers_own`): it knows nothing of layouts."""

    def with_windows(self, windows: Sequence[int | None]) -> ModelConfig:
        """With the window of each layer, or the one of all."""
        windows = [*windows] * self.num_layers if len(windows) == 1 else windows
        layers = (replace(layer, window=window) for layer, window in zip(self.layers, windows, strict=True))
        return replace(self, layers=tuple(layers))

    def with_experts(self, has_experts: Sequence[bool]) -> ModelConfig:
        """With experts in place of an MLP in the layers that have them."""
        pairs = zip(self.layers, has_experts, strict=True)
        return replace(self, layers=tuple(replace(layer, has_experts=has) for layer, has in pairs))

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def window(self) -> int | None:
        """The largest of the layers' windows; None: some layer has none."""
        windows = [layer.window for layer in self.layers]
        return None if None in windows else max(window for window in windows if window is not None)

    @property
    def gate_up_sizes(self) -> tuple[int, ...]:
        """Outputs of the projections that go into an MLP."""
        return (self.intermediate_size,) * (2 if self.is_gated else 1)

    @property
    def score_scale(self) -> float:
        return 1 / math.sqrt(self.head_dim) if self.query_scale is None else self.query_scale

    @property
    def kv_numbers_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim
