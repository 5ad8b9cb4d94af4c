"""Which models the compiled kernels run. Imports no numba."""

from __future__ import annotations

from dataclasses import replace

from pie_engine.model.description import ModelConfig
from pie_engine.model.quantization import Quantization

LANES = 16
"""Numbers of a vector: one AVX-512 register, and a few registers each elsewhere."""
PAGE_SIZE = LANES
"""A page's slots are the lanes of a vector."""


def why_not(config: ModelConfig, page_size: int, quantize: Quantization = "none") -> str | None:
    """What keeps this model from running compiled; None: nothing."""
    if page_size != PAGE_SIZE:
        return f"pages have {page_size} tokens, not {PAGE_SIZE}"
    if config.needs_transformers:
        return "Transformers runs it"
    if quantize != "none" and not has_whole_heads(config):
        return f"its weights are quantized, and its heads of {config.head_dim} are no whole vectors"
    return None


def whole_vectors(size: int) -> int:
    """The least multiple of a vector's size that holds so many numbers."""
    return -(-size // LANES) * LANES


def has_whole_heads(config: ModelConfig) -> bool:
    """Others are filled up with zeros, for which weights have to be plain numbers."""
    return whole_vectors(config.head_dim) == config.head_dim


def padded(config: ModelConfig) -> ModelConfig:
    """As the kernels run it: with heads of whole vectors, filled up with zeros."""
    return replace(config, head_dim=whole_vectors(config.head_dim), query_scale=config.score_scale)


def kv_bytes_per_token(config: ModelConfig, dtype: str, page_size: int, *, is_compiled: bool = True) -> int:
    """Of all layers: the kernels keep keys and values as bf16 where the weights are, torch always as fp32."""
    if not is_compiled or why_not(config, page_size) is not None:
        return config.kv_numbers_per_token * 4
    return padded(config).kv_numbers_per_token * (2 if dtype == "bfloat16" else 4)
