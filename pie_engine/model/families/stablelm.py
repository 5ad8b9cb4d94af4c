"""StableLM (https://arxiv.org/abs/2402.17834): norms that take the mean away, rotary positions on a quarter of each
head; in some sizes attention and MLP side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama, other
from pie_engine.model.fields import Fields

DEFAULTS: dict[str, Any] = {
    "max_position_embeddings": 4096,
    "layer_norm_eps": 1e-5,
    "partial_rotary_factor": 0.25,
}


def describe(get: Fields) -> ModelConfig:
    """Norms on query and key heads, which one size has, are Transformers'."""
    if get.flag("qk_layernorm"):
        return other.describe(get)
    get = get.over(**DEFAULTS)
    config = llama.plain(get.over(rms_norm_eps=get.number("layer_norm_eps")), may_be_partial=True)
    is_parallel = get.flag("use_parallel_residual")
    return replace(
        config,
        names=replace(config.names, mlp_norm=None) if is_parallel else config.names,
        is_parallel=is_parallel,
        centers_norms=True,
        norm_bias=True,
        qkv_bias=get.flag("use_qkv_bias"),
    )
