"""Llama 2, 3 and 3.x: pre-norm blocks of grouped-query attention with rotary positions and a gated SiLU MLP.

The other families start from this one and say what they change.
"""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import LayerConfig, ModelConfig
from pie_engine.model.fields import Fields
from pie_engine.model.rope_config import read_context, read_rope


def describe(get: Fields) -> ModelConfig:
    config = plain(get)
    has_bias = get.flag("attention_bias")
    return replace(config, qkv_bias=has_bias, attention_out_bias=has_bias, mlp_bias=get.flag("mlp_bias"))


def plain(get: Fields, *, default_theta: float = 10000.0, may_be_partial: bool = False) -> ModelConfig:
    """What nearly every family has: the sizes under their usual names, and no biases."""
    hidden_size, num_heads = get.size("hidden_size"), get.size("num_attention_heads")
    head_dim = get.size("head_dim", max(hidden_size // num_heads, 1))
    rope = read_rope(get, head_dim, default_theta=default_theta, may_be_partial=may_be_partial)
    return ModelConfig(
        architecture=str(get.raw["architectures"][0]),
        hidden_size=hidden_size,
        intermediate_size=get.size("intermediate_size"),
        num_heads=num_heads,
        num_kv_heads=get.size("num_key_value_heads", num_heads),
        head_dim=head_dim,
        vocab_size=get.size("vocab_size"),
        max_context_tokens=read_context(get),
        norm_eps=get.number("rms_norm_eps", 1e-6),
        layers=(LayerConfig(rope),) * get.size("num_hidden_layers"),
        tie_embeddings=get.flag("tie_word_embeddings"),
        dtype=get.dtype(),
        bos_id=next(iter(get.token_ids("bos_token_id")), None),
        activation=get.activation(),
    )
