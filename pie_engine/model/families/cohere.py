"""Command-R and Aya (https://huggingface.co/CohereLabs): attention and MLP side by side behind one norm, which takes
the mean away; rotary positions in pairs of neighbours; scaled logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama, other
from pie_engine.model.fields import Fields

DEFAULTS: dict[str, Any] = {"max_position_embeddings": 8192, "tie_word_embeddings": True, "layer_norm_eps": 1e-5}


def describe(get: Fields) -> ModelConfig:
    """Norms on query and key heads, which the largest have, are Transformers'."""
    return other.describe(get) if get.flag("use_qk_norm") else plain(get)


def plain(get: Fields) -> ModelConfig:
    get = get.over(**DEFAULTS)
    config = llama.describe(get.over(rms_norm_eps=get.number("layer_norm_eps")))
    return replace(
        config,
        names=replace(config.names, mlp_norm=None),
        centers_norms=True,
        is_parallel=True,
        rotates_neighbours=True,
        logit_scale=get.number("logit_scale", 0.0625),
        mlp_bias=False,
    )
