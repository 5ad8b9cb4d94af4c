"""Phi-1, 1.5 and 2 (https://arxiv.org/abs/2309.05463): attention and MLP side by side behind one norm, which takes the
mean away; an MLP without a gate; biases everywhere; rotary positions on a part of each head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama, other
from pie_engine.model.fields import Fields

DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "partial_rotary_factor": 0.5,
}


def describe(get: Fields) -> ModelConfig:
    """Norms on query and key heads, which none that was released has, are Transformers'."""
    if get.flag("qk_layernorm"):
        return other.describe(get)
    get = get.over(**DEFAULTS)
    config = llama.plain(get.over(rms_norm_eps=get.number("layer_norm_eps")), may_be_partial=True)
    names = replace(
        config.names,
        final_norm="model.final_layernorm",
        mlp_norm=None,
        attention_out="self_attn.dense",
        gate_up=("mlp.fc1",),
        down="mlp.fc2",
    )
    return replace(
        config,
        names=names,
        is_gated=False,
        is_parallel=True,
        centers_norms=True,
        norm_bias=True,
        qkv_bias=True,
        attention_out_bias=True,
        mlp_bias=True,
        head_bias=True,
    )
