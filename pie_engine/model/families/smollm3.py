"""SmolLM 3 (https://huggingface.co/blog/smollm3): Llama, where every fourth layer does not look at positions."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.errors import ModelError
from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    get = get.over(rope_theta=2000000.0, tie_word_embeddings=True)
    config = llama.describe(get)
    has_rope = _has_rope(get, config.num_layers)
    window = get.optional_size("sliding_window") if get.flag("use_sliding_window") else None
    config = config.with_windows(get.layer_windows(window, [not rotates for rotates in has_rope]))
    layers = zip(config.layers, has_rope, strict=True)
    return replace(config, layers=tuple(layer if rotates else replace(layer, rope=None) for layer, rotates in layers))


def _has_rope(get: Fields, num_layers: int) -> list[bool]:
    """`no_rope_layers` holds a 1 where there are rotary positions, whatever its name says."""
    marks = get.raw.get("no_rope_layers")
    if marks is None:
        interval = get.size("no_rope_layer_interval", 4)
        return [(layer + 1) % interval != 0 for layer in range(num_layers)]
    if not isinstance(marks, list) or len(marks) < num_layers:
        raise ModelError(f"{get.where}: no_rope_layers must have a number for each of {num_layers} layers")
    return [bool(mark) for mark in marks[:num_layers]]
