"""Seed-OSS (https://huggingface.co/ByteDance-Seed): Llama, where the projections into attention and the one out of it
say for themselves whether they have biases."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    config = llama.describe(get.over(attention_bias=True, head_dim=128, num_key_value_heads=8))
    return replace(config, attention_out_bias=get.flag("attention_out_bias"))
