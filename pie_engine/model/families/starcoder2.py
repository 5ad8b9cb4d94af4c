"""StarCoder 2 (https://arxiv.org/abs/2402.19173): norms that take the mean away, an MLP without a gate, and biases
everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields

DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 4096,
    "norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}


def describe(get: Fields) -> ModelConfig:
    get = get.over(**DEFAULTS)
    config = llama.plain(get.over(rms_norm_eps=get.number("norm_epsilon")))
    has_bias = get.flag("use_bias", True)
    config = replace(
        config,
        names=replace(config.names, gate_up=("mlp.c_fc",), down="mlp.c_proj"),
        is_gated=False,
        centers_norms=True,
        norm_bias=True,
        qkv_bias=has_bias,
        attention_out_bias=has_bias,
        mlp_bias=has_bias,
    )
    return config.with_windows([get.optional_size("sliding_window")])
