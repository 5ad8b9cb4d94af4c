"""GLM-4 of 2024 (https://arxiv.org/abs/2406.12793): rotary positions on half of each head, in pairs of neighbours;
biases on queries, keys and values; gate and up projection fused in the file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields

DEFAULTS: dict[str, Any] = {
    "head_dim": 128,
    "num_key_value_heads": 2,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1.5625e-07,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
}


def describe(get: Fields) -> ModelConfig:
    get = get.over(**DEFAULTS)
    config = llama.plain(get, may_be_partial=True)
    names = replace(config.names, gate_up=("mlp.gate_up_proj",))
    return replace(config, names=names, qkv_bias=get.flag("attention_bias"), rotates_neighbours=True)
