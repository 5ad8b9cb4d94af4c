"""Rotary scaling in every spelling that configurations have: `rope_parameters` (Transformers 5), or `rope_theta`
beside `rope_scaling`, whose kind is `rope_type` or `type`.

Two kinds depend on how long the context gets, `longrope` and `dynamic`. Both are settled here, by the longest context
that will be asked for (`max_context_tokens` of the model's configuration).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pie_engine.errors import InvalidConfig, ModelError, Unsupported
from pie_engine.model.description import RopeConfig
from pie_engine.model.fields import Fields

SUPPORTED_ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
_OLD_NAMES = {"su": "longrope"}


def scaling_of(get: Fields) -> Mapping[str, Any]:
    """The raw `rope_parameters` or `rope_scaling`."""
    scaling = get.raw.get("rope_parameters") or get.raw.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise ModelError(f"{get.where}: rope_scaling must be an object, not {scaling!r}")
    return scaling


def read_context(get: Fields, default: int = 2048) -> int:
    """The model's longest context, or the limit if one is set."""
    own = get.size("max_position_embeddings", default)
    scaling, most = Fields(scaling_of(get), get.where), own
    kind = _kind(scaling, get)
    if kind == "yarn":  # some configurations keep the length from before the scaling
        own = max(own, int(scaling.size("original_max_position_embeddings", own) * scaling.number("factor", 1.0)))
    most = int(own * scaling.positive("factor")) if kind == "dynamic" else own
    check_limit(get, most)
    return get.context_limit or own


def check_limit(get: Fields, most: int) -> None:
    if get.context_limit > most:
        raise InvalidConfig(
            f"max_context_tokens is {get.context_limit}; the model takes {most}", hint="lower it, or leave it out"
        )


def read_rope(
    get: Fields,
    head_dim: int,
    *,
    default_theta: float = 10000.0,
    may_be_partial: bool = False,
    scaling: Mapping[str, Any] | None = None,
) -> RopeConfig:
    """The rotation that `scaling` describes, by default the one of the whole model."""
    scaling = scaling_of(get) if scaling is None else scaling
    inner = Fields(scaling, f"{get.where} (rope)", get.context_limit)
    theta = inner.positive("rope_theta", get.positive("rope_theta", default_theta))
    fraction = inner.positive("partial_rotary_factor", get.positive("partial_rotary_factor", 1.0))
    if fraction != 1.0 and not may_be_partial:
        raise Unsupported(f"{get.where}: rotary positions on a part of each head are not supported in this family")
    if fraction > 1.0:
        raise ModelError(f"{inner.where}: partial_rotary_factor must be at most 1, not {fraction}")
    rotated = int(head_dim * fraction)
    if head_dim % 2 or rotated % 2:
        which = f"head_dim {head_dim}" if head_dim % 2 else f"the rotated part of a head, {rotated},"
        raise ModelError(f"{get.where}: {which} is odd; rotary positions need pairs")
    kind = _kind(inner, get)
    if kind == "default":
        return RopeConfig(theta=theta, rotated_fraction=fraction)
    if kind == "linear":
        return RopeConfig("linear", theta, inner.positive("factor"), rotated_fraction=fraction)
    if kind == "dynamic":
        return RopeConfig(theta=_dynamic_theta(get, inner, theta, rotated), rotated_fraction=fraction)
    if kind == "llama3":
        return _llama3(inner, theta, fraction)
    return (_yarn if kind == "yarn" else _longrope)(get, inner, theta, fraction, rotated)


def _kind(scaling: Fields, get: Fields) -> str:
    name = scaling.raw.get("rope_type") or scaling.raw.get("type") or "default"
    kind = "longrope" if "long_factor" in scaling.raw else _OLD_NAMES.get(name, name)
    if kind not in SUPPORTED_ROPE_TYPES:
        raise Unsupported(
            f"{get.where}: rope type {kind!r} is not supported", hint=f"supported: {', '.join(SUPPORTED_ROPE_TYPES)}"
        )
    return str(kind)


def _dynamic_theta(get: Fields, inner: Fields, theta: float, rotated: int) -> float:
    """A larger base beyond the trained length, after
    https://www.reddit.com/r/LocalLLaMA/comments/14mrgpr/dynamically_scaled_rope_further_increases/."""
    factor, trained = inner.positive("factor"), get.size("max_position_embeddings", 2048)
    length = max(get.context_limit, trained)
    return float(theta * ((factor * length / trained) - (factor - 1)) ** (rotated / (rotated - 2)))


def _llama3(inner: Fields, theta: float, fraction: float) -> RopeConfig:
    rope = RopeConfig(
        kind="llama3",
        theta=theta,
        factor=inner.positive("factor"),
        low_freq_factor=inner.positive("low_freq_factor"),
        high_freq_factor=inner.positive("high_freq_factor"),
        original_max_position=inner.size("original_max_position_embeddings"),
        rotated_fraction=fraction,
    )
    if rope.high_freq_factor <= rope.low_freq_factor:
        raise ModelError(f"{inner.where}: high_freq_factor must be greater than low_freq_factor")
    return rope


def _original_length(get: Fields, inner: Fields) -> int:
    """Beside the scaling as in Phi-3, or within it, or not at all."""
    own = get.size("max_position_embeddings", 2048)
    return get.size("original_max_position_embeddings", inner.size("original_max_position_embeddings", own))


def _yarn(get: Fields, inner: Fields, theta: float, fraction: float, rotated: int) -> RopeConfig:
    """https://arxiv.org/abs/2309.00071; `mscale` and `mscale_all_dim` are DeepSeek's."""
    original = _original_length(get, inner)
    factor = inner.positive("factor", get.size("max_position_embeddings", 2048) / original)
    attention_factor = inner.optional_positive("attention_factor")
    if attention_factor is None:
        above, below = inner.raw.get("mscale"), inner.raw.get("mscale_all_dim")
        if above and below:
            attention_factor = _mscale(factor, inner.number("mscale")) / _mscale(factor, inner.number("mscale_all_dim"))
        else:
            attention_factor = _mscale(factor, 1.0)
    return RopeConfig(
        kind="yarn",
        theta=theta,
        factor=factor,
        original_max_position=original,
        rotated_fraction=fraction,
        attention_factor=attention_factor,
        beta_fast=inner.positive("beta_fast", 32.0),
        beta_slow=inner.positive("beta_slow", 1.0),
        truncate=inner.flag("truncate", True),
    )


def _mscale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope(get: Fields, inner: Fields, theta: float, fraction: float, rotated: int) -> RopeConfig:
    """https://arxiv.org/abs/2402.13753: one divisor for each frequency, and two sets of them.

    Transformers takes the long set as soon as a sequence is longer than the model was first trained on, and throws the
    KV of the sequence away when that happens. Here the length of the context that is served decides.
    """
    original, own = _original_length(get, inner), get.size("max_position_embeddings", 2048)
    factor = inner.positive("factor", own / original)
    attention_factor = inner.optional_positive("attention_factor")
    if attention_factor is None:
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    is_long = (get.context_limit or own) > original
    return RopeConfig(
        kind="longrope",
        theta=theta,
        factor=factor,
        original_max_position=original,
        rotated_fraction=fraction,
        attention_factor=attention_factor,
        factors=inner.numbers("long_factor" if is_long else "short_factor", rotated // 2),
    )
