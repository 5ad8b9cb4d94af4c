"""Ernie 4.5 without experts (https://ernie.baidu.com/blog/publication/ERNIE_Technical_Report.pdf): Llama with rotary
positions in pairs of neighbours."""

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
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}


def describe(get: Fields) -> ModelConfig:
    get = get.over(**DEFAULTS)
    has_bias = get.flag("use_bias")
    return replace(
        llama.plain(get),
        qkv_bias=has_bias,
        attention_out_bias=has_bias,
        mlp_bias=has_bias,
        rotates_neighbours=True,
    )
