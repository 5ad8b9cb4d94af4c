"""Qwen 3 with experts (https://arxiv.org/abs/2505.09388): most layers have a mixture of many small experts."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.errors import ModelError
from pie_engine.model.description import ExpertsConfig, ModelConfig
from pie_engine.model.families import qwen3
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    hidden_size, num_heads = get.size("hidden_size"), get.size("num_attention_heads")
    config = qwen3.describe(get.over(head_dim=hidden_size // num_heads))
    window = get.optional_size("sliding_window") if get.flag("use_sliding_window") else None
    experts = ExpertsConfig(
        num_experts=get.size("num_experts", get.size("num_local_experts", 128)),
        num_active=get.size("num_experts_per_tok", 8),
        intermediate_size=get.size("moe_intermediate_size", 768),
        normalize=get.flag("norm_topk_prob"),
    )
    dense, step = get.raw.get("mlp_only_layers") or [], get.size("decoder_sparse_step", 1)
    if not isinstance(dense, list):
        raise ModelError(f"{get.where}: mlp_only_layers must be a list of layer numbers, not {dense!r}")
    has_experts = [layer not in dense and (layer + 1) % step == 0 for layer in range(config.num_layers)]
    return replace(config, experts=experts).with_windows([window]).with_experts(has_experts)
