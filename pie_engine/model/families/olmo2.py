"""OLMo 2 (https://arxiv.org/abs/2501.00656): norms after attention and MLP instead of before, and RMS norms on whole
query and key projections."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    config = llama.describe(get.over(rms_norm_eps=1e-5))
    names = replace(
        config.names,
        attention_norm=None,
        attention_post_norm="post_attention_layernorm",
        mlp_norm=None,
        mlp_post_norm="post_feedforward_layernorm",
        query_norm="self_attn.q_norm",
        key_norm="self_attn.k_norm",
    )
    return replace(config, names=names, norms_whole_projection=True, mlp_bias=False)
