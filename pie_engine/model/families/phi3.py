"""Phi-3, 3.5 and 4 (https://arxiv.org/abs/2404.14219): Llama with fused projections in the checkpoint, LongRoPE, and
rotary positions on a part of each head in some sizes."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    config = llama.plain(get.over(max_position_embeddings=4096), may_be_partial=True)
    names = replace(config.names, qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",))
    return replace(config, names=names).with_windows([get.optional_size("sliding_window")])
