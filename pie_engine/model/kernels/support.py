"""Which models the compiled kernels run. Imports no numba."""

from __future__ import annotations

from pie_engine.model.description import ModelConfig

LANES = 16
"""Numbers of a vector: one AVX-512 register, and a few registers each elsewhere."""
PAGE_SIZE = LANES
"""A page's slots are the lanes of a vector."""
ACTIVATIONS = ("silu", "gelu_tanh")


def why_not(config: ModelConfig, page_size: int) -> str | None:
    """What keeps this model from running compiled; None: nothing."""
    if page_size != PAGE_SIZE:
        return f"pages have {page_size} tokens, not {PAGE_SIZE}"
    if config.needs_transformers:
        return "Transformers runs it"
    if config.experts is not None:
        return "it has experts"
    if config.names.sinks is not None:
        return "it has attention sinks"
    if config.activation not in ACTIVATIONS:
        return f"its activation is {config.activation}"
    sizes = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "head_dim": config.head_dim,
    }
    odd = [f"{name} {size}" for name, size in sizes.items() if size % LANES]
    return f"{', '.join(odd)} is no multiple of {LANES}" if odd else None


def kv_bytes_per_token(config: ModelConfig, dtype: str, page_size: int, *, is_compiled: bool = True) -> int:
    """Of all layers: the kernels keep keys and values as bf16 where the weights are, torch always as fp32."""
    is_small = is_compiled and dtype == "bfloat16" and why_not(config, page_size) is None
    return config.kv_numbers_per_token * (2 if is_small else 4)
