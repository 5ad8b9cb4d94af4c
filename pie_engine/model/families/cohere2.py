"""Command-A and Command-R7B (https://arxiv.org/abs/2504.00698): Command-R with a window on three layers out of four;
the others do not look at positions."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import cohere
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    get = get.over(sliding_window=4096)
    config = cohere.plain(get)
    pattern = get.size("sliding_window_pattern", 4)
    is_windowed = [(layer + 1) % pattern != 0 for layer in range(config.num_layers)]
    config = config.with_windows(get.layer_windows(get.optional_size("sliding_window"), is_windowed))
    layers = (layer if layer.window else replace(layer, rope=None) for layer in config.layers)
    return replace(config, layers=tuple(layers))
