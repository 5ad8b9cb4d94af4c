"""GLM-4-0414 (https://huggingface.co/zai-org): GLM-4 with norms after attention and MLP too."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import glm
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    config = glm.describe(get)
    names = replace(
        config.names,
        attention_post_norm="post_self_attn_layernorm",
        mlp_post_norm="post_mlp_layernorm",
    )
    return replace(config, names=names)
