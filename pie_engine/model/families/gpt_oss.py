"""gpt-oss (https://arxiv.org/abs/2508.10925): experts with a clamped SwiGLU in every layer, packed as MXFP4 or not;
attention sinks; a window on every second layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pie_engine.model.description import ExpertsConfig, ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields

DEFAULTS: dict[str, Any] = {
    "head_dim": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 150000.0,
    "sliding_window": 128,
    "attention_bias": True,
}


def describe(get: Fields) -> ModelConfig:
    get = get.over(**DEFAULTS)
    config = llama.describe(get)
    quantization = get.raw.get("quantization_config")
    experts = ExpertsConfig(
        num_experts=get.size("num_local_experts", 128),
        num_active=get.size("num_experts_per_tok", get.size("experts_per_token", 4)),
        intermediate_size=config.intermediate_size,
        normalize=True,  # a softmax over the chosen is one over all, scaled to sum to one
        is_stacked=True,
        is_packed=isinstance(quantization, Mapping) and quantization.get("quant_method") == "mxfp4",
        has_bias=True,
    )
    names = replace(
        config.names,
        sinks="self_attn.sinks",
        router="mlp.router",
        expert_gate_up=("gate_up_proj",),
    )
    config = replace(
        config,
        names=names,
        experts=experts,
        activation="clamped_swiglu",
        swiglu_alpha=get.positive("swiglu_alpha", 1.702),
        swiglu_limit=get.positive("swiglu_limit", 7.0),
    )
    is_windowed = [layer % 2 == 0 for layer in range(config.num_layers)]
    windows = get.layer_windows(get.optional_size("sliding_window"), is_windowed)
    return config.with_windows(windows).with_experts([True] * config.num_layers)
