"""OLMo 3 (https://arxiv.org/abs/2512.13961): OLMo 2 with a window on three layers out of four, which keep plain rotary
positions where the others are scaled."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import olmo2
from pie_engine.model.fields import Fields
from pie_engine.model.rope_config import read_rope, scaling_of

_WINDOWED_OF = 4


def describe(get: Fields) -> ModelConfig:
    get = get.over(rope_theta=500000.0, sliding_window=4096)
    scaling = scaling_of(get)
    if "full_attention" in scaling or "sliding_attention" in scaling:
        full, local = (scaling.get(kind) or {} for kind in ("full_attention", "sliding_attention"))
    else:
        full, local = scaling, {"rope_theta": scaling.get("rope_theta") or get.positive("rope_theta")}
    plain = replace(get, raw={**get.raw, "rope_parameters": None, "rope_scaling": None})
    config = olmo2.describe(plain)
    is_windowed = [(layer + 1) % _WINDOWED_OF != 0 for layer in range(config.num_layers)]
    config = config.with_windows(get.layer_windows(get.optional_size("sliding_window"), is_windowed))
    ropes = [read_rope(get, config.head_dim, scaling=kind) for kind in (full, local)]
    layers = (replace(layer, rope=ropes[layer.window is not None]) for layer in config.layers)
    return replace(config, layers=tuple(layers))
