"""Gemma (https://arxiv.org/abs/2403.08295): Llama with scaled embeddings, norms whose weights are stored as their
difference from one, and tanh-approximated GELU, which older configurations call `gelu`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pie_engine.model.description import ModelConfig, Names
from pie_engine.model.families import gemma2
from pie_engine.model.fields import Fields

DEFAULTS: dict[str, Any] = {
    "head_dim": 256,
    "num_key_value_heads": 16,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
}


def describe(get: Fields) -> ModelConfig:
    get = get.over(**DEFAULTS)
    return replace(gemma2.common(get), names=Names(), query_scale=None, activation="gelu_tanh")
