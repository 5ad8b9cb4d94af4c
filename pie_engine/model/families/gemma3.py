"""Gemma 3, its text part (https://arxiv.org/abs/2503.19786): Gemma 2 with norms on query and key heads in place of the
soft-caps, and rotary positions of their own in the layers with a window, which are five out of six."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pie_engine.model.description import ModelConfig, Names, RopeConfig
from pie_engine.model.families import gemma2
from pie_engine.model.fields import Fields
from pie_engine.model.rope_config import read_rope, scaling_of

DEFAULTS: dict[str, Any] = {
    **gemma2.DEFAULTS,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
_GLOBAL_THETA, _LOCAL_THETA = 1000000.0, 10000.0


def describe(get: Fields) -> ModelConfig:
    get = get.over(**DEFAULTS)
    ropes = _ropes(get)
    config = gemma2.common(replace(get, raw={**get.raw, "rope_parameters": None, "rope_scaling": None}))
    names = replace(config.names, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")
    pattern = get.size("sliding_window_pattern", 6)
    is_windowed = [(layer + 1) % pattern != 0 for layer in range(config.num_layers)]
    config = config.with_windows(get.layer_windows(get.optional_size("sliding_window"), is_windowed))
    layers = (replace(layer, rope=ropes[layer.window is not None]) for layer in config.layers)
    return replace(config, names=names, layers=tuple(layers))


def describe_multimodal(get: Fields) -> ModelConfig:
    """The text part of a checkpoint that also sees images. Transformers 5 names its tensors differently."""
    inner = get.inner("text_config").over(architectures=get.raw["architectures"], dtype=get.dtype())
    config = describe(inner)

    def below(prefix: str, head: str) -> Names:
        names = config.names
        return replace(
            names, embedding=f"{prefix}.embed_tokens", final_norm=f"{prefix}.norm", head=head, layers=f"{prefix}.layers"
        )

    old, new = below("language_model.model", "language_model.lm_head"), below("model.language_model", "lm_head")
    return replace(config, names=old, other_names=(new,))


def _ropes(get: Fields) -> tuple[RopeConfig, RopeConfig]:
    """Of layers without and with a window."""
    scaling, head_dim = scaling_of(get), get.size("head_dim")
    if "full_attention" in scaling or "sliding_attention" in scaling:
        full, local = (scaling.get(kind) or {} for kind in ("full_attention", "sliding_attention"))
    else:
        full, local = scaling, {}
    local_theta = get.positive("rope_local_base_freq", _LOCAL_THETA)
    return (
        read_rope(get, head_dim, default_theta=_GLOBAL_THETA, scaling=full),
        read_rope(get.over(), head_dim, default_theta=local_theta, scaling={"rope_theta": local_theta, **local}),
    )
