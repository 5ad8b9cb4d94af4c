"""Qwen 2 and 2.5 (https://arxiv.org/abs/2412.15115): Llama with biases on queries, keys and values only.

The upper layers can have a window.
"""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    config = llama.plain(get)
    return replace(config.with_windows(windows(get, config.num_layers)), qkv_bias=True)


def windows(get: Fields, num_layers: int) -> tuple[int | None, ...]:
    """Of each layer. Configurations name a window also where it is switched off."""
    window = get.optional_size("sliding_window") if get.flag("use_sliding_window") else None
    first = get.raw.get("max_window_layers", num_layers) or 0
    return get.layer_windows(window, [layer >= first for layer in range(num_layers)])
