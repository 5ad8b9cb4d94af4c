"""OLMoE (https://arxiv.org/abs/2409.02060): Llama with many small experts in every layer, and RMS norms on whole query
and key projections."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.errors import Unsupported
from pie_engine.model.description import ExpertsConfig, ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    get = get.over(rms_norm_eps=1e-5, max_position_embeddings=4096)
    if get.raw.get("clip_qkv") is not None:
        raise Unsupported(f"{get.where}: clip_qkv is set", hint="no OLMoE that was released has it")
    config = llama.describe(get)
    experts = ExpertsConfig(
        num_experts=get.size("num_experts", 64),
        num_active=get.size("num_experts_per_tok", 8),
        intermediate_size=config.intermediate_size,
        normalize=get.flag("norm_topk_prob"),
    )
    names = replace(config.names, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")
    config = replace(config, names=names, experts=experts, norms_whole_projection=True, mlp_bias=False)
    return config.with_experts([True] * config.num_layers)
