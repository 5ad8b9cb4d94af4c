"""Qwen 3 (https://arxiv.org/abs/2505.09388): Llama with RMS norms on each query and key head."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama, qwen2
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    config = llama.describe(get.over(head_dim=128))
    names = replace(config.names, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")
    config = replace(config, names=names, mlp_bias=False)
    return config.with_windows(qwen2.windows(get, config.num_layers))
