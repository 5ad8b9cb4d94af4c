"""EXAONE 4 (https://arxiv.org/abs/2507.11407): norms after attention and MLP and on query and key heads; where some
layers have a window, the others do not look at positions."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.errors import ModelError
from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    get = get.over(rms_norm_eps=1e-5, sliding_window=4096)
    config = llama.plain(get)
    window = get.optional_size("sliding_window")
    names = replace(
        config.names,
        attention_norm=None,
        attention_post_norm="post_attention_layernorm",
        mlp_norm=None,
        mlp_post_norm="post_feedforward_layernorm",
        query_norm="self_attn.q_norm",
        key_norm="self_attn.k_norm",
    )
    config = replace(config, names=names)
    if window is None:
        return config
    config = config.with_windows(get.layer_windows(window, _is_windowed(get, config.num_layers)))
    layers = (layer if layer.window else replace(layer, rope=None) for layer in config.layers)
    return replace(config, layers=tuple(layers))


def _is_windowed(get: Fields, num_layers: int) -> list[bool]:
    """`sliding_window_pattern` is a period of kinds, `LLLG`, or its length."""
    pattern = get.raw.get("sliding_window_pattern") or 4
    if isinstance(pattern, str) and pattern and set(pattern) <= {"L", "G"}:
        return [pattern[layer % len(pattern)] == "L" for layer in range(num_layers)]
    if isinstance(pattern, bool) or not isinstance(pattern, int):
        raise ModelError(f"{get.where}: sliding_window_pattern must be a number or as `LLLG`, not {pattern!r}")
    return [(layer + 1) % pattern != 0 for layer in range(num_layers)]
