"""Ministral (https://mistral.ai/news/ministraux): Mistral, where each layer says whether it has a window."""

from __future__ import annotations

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import mistral
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    get = get.over(sliding_window=4096, num_key_value_heads=8)
    config = mistral.describe(get)
    return config.with_windows(get.layer_windows(get.optional_size("sliding_window"), [True] * config.num_layers))
