"""Granite 3 (https://www.ibm.com/granite): Llama with four constant multipliers."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    return replace(
        llama.describe(get),
        embedding_scale=get.number("embedding_multiplier", 1.0),
        residual_scale=get.number("residual_multiplier", 1.0),
        query_scale=get.positive("attention_multiplier", 1.0),
        logit_scale=1 / get.positive("logits_scaling", 1.0),
    )
