"""Mixtral (https://arxiv.org/abs/2401.04088): Mistral with a mixture of experts in place of each MLP."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ExpertsConfig, ModelConfig
from pie_engine.model.families import mistral
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    config = mistral.describe(get.over(rope_theta=1000000.0))
    experts = ExpertsConfig(
        num_experts=get.size("num_local_experts", 8),
        num_active=get.size("num_experts_per_tok", 2),
        intermediate_size=config.intermediate_size,
        normalize=True,
    )
    names = replace(
        config.names,
        router="block_sparse_moe.gate",
        expert="block_sparse_moe.experts",
        expert_gate_up=("w1", "w3"),
        expert_down="w2",
    )
    return replace(config, names=names, experts=experts).with_experts([True] * config.num_layers)
