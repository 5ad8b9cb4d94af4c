"""Gemma 2 (https://arxiv.org/abs/2408.00118): norms before and after attention and MLP, whose weights are stored as
their difference from one; scaled embeddings; soft-caps on scores and logits; a window on every second layer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pie_engine.errors import Unsupported
from pie_engine.model.description import ModelConfig, Names
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields

DEFAULTS: dict[str, Any] = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
"""Of Transformers' configuration class: files leave out what does not differ."""
NAMES = Names(
    attention_post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)


def describe(get: Fields) -> ModelConfig:
    get = get.over(**DEFAULTS)
    config = common(get)
    is_windowed = [layer % 2 == 0 for layer in range(config.num_layers)]
    return config.with_windows(get.layer_windows(get.optional_size("sliding_window"), is_windowed))


def common(get: Fields) -> ModelConfig:
    """What Gemma 2 and 3 share; `get` has the defaults of its family."""
    if get.flag("use_bidirectional_attention"):
        raise Unsupported(f"{get.where}: use_bidirectional_attention is on", hint="Pie runs models that generate text")
    has_bias = get.flag("attention_bias")
    return replace(
        llama.plain(get),
        names=NAMES,
        qkv_bias=has_bias,
        attention_out_bias=has_bias,
        activation=get.activation("hidden_activation"),
        query_scale=1 / math.sqrt(get.positive("query_pre_attn_scalar")),
        score_softcap=get.optional_positive("attn_logit_softcapping"),
        logit_softcap=get.optional_positive("final_logit_softcapping"),
        norm_offset=1.0,
        embedding_scale=math.sqrt(get.size("hidden_size")),
    )
