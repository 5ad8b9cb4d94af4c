"""GPT-NeoX and Pythia (https://arxiv.org/abs/2204.06745): attention and MLP side by side, each behind a norm that takes
the mean away; an MLP without a gate; biases everywhere; rotary positions on a quarter of each head; query, key and
value of each head fused in the file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pie_engine.model.description import ModelConfig, Names
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields

DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rotary_pct": 0.25,
    "rotary_emb_base": 10000.0,
}
NAMES = Names(
    embedding="gpt_neox.embed_in",
    final_norm="gpt_neox.final_layer_norm",
    head="embed_out",
    layers="gpt_neox.layers",
    qkv=("attention.query_key_value",),
    attention_out="attention.dense",
    gate_up=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h",
)


def describe(get: Fields) -> ModelConfig:
    get = get.over(**DEFAULTS)
    get = get.over(
        rms_norm_eps=get.number("layer_norm_eps"),
        partial_rotary_factor=get.number("rotary_pct"),
        rope_theta=get.number("rotary_emb_base"),
    )
    has_bias = get.flag("attention_bias", True)
    return replace(
        llama.plain(get, may_be_partial=True),
        names=NAMES,
        interleaves_heads=True,
        is_gated=False,
        is_parallel=get.flag("use_parallel_residual", True),
        centers_norms=True,
        norm_bias=True,
        qkv_bias=has_bias,
        attention_out_bias=has_bias,
        mlp_bias=True,
    )
