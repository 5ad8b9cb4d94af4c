"""What a model is, by its configuration and the headers of its files: no weights are read and nothing of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pie_engine.config import MIB
from pie_engine.errors import ModelError, PieError, Unsupported
from pie_engine.hub.memory import Need, available_bytes
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.config import read_json
from pie_engine.model.description import Kernels
from pie_engine.model.gguf_file.index import INDEX, read_index
from pie_engine.model.kernels.support import PAGE_SIZE, kv_bytes_per_token, why_not
from pie_engine.model.quantization import Quantization

SAMPLE_CONTEXT = 4096
"""Tokens of the context whose KV is told."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
SHOWN_DTYPES = ("float32", "bfloat16")
QUANTIZED: tuple[Quantization, ...] = ("int8", "int4")
"""With what is not quantized in bfloat16."""


class Shape(msgspec.Struct, frozen=True):
    """Sizes of a model that Pie can load."""

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context_tokens: int
    num_parameters: int


class MemoryFacts(msgspec.Struct, frozen=True):
    """In bytes."""

    weights: dict[str, int]
    """By the dtype that the engine computes in, and by what `quantize` makes of them."""
    kv_per_token: int
    kv_memory: int
    """What is configured, or the default."""
    needed: dict[str, int]
    """By dtype: weights, KV memory and the work."""
    available: int

    @property
    def fitting(self) -> list[str]:
        """The dtypes in which it fits now."""
        return [dtype for dtype, needed in self.needed.items() if needed <= self.available]


class Facts(msgspec.Struct, frozen=True):
    """What `pie model info` tells."""

    folder: str
    architecture: str
    dtype: str
    """As stored."""
    size_bytes: int
    """Of the weight files."""
    has_tokenizer: bool
    has_chat_template: bool
    problem: str = ""
    """Why Pie cannot load it; then there are no shape and no memory."""
    hint: str = ""
    shape: Shape | None = None
    memory: MemoryFacts | None = None


def read_facts(folder: Path, *, kv_memory_mb: int = 512) -> Facts:
    """Everything about the model in `folder`. One that cannot be loaded has a `problem` instead of a shape.

    Raises `ModelError` when the folder says nothing of itself.
    """
    raw = read_raw(folder)
    problem, shape, memory = "", None, None
    hint = ""
    try:
        checkpoint = Checkpoint.open(folder)
        shape, memory = _shape(checkpoint), _memory(checkpoint, kv_memory_mb * MIB)
    except (ModelError, Unsupported) as error:
        problem, hint = error.message, error.hint
    return Facts(
        folder=str(folder),
        architecture=architecture_of(raw),
        dtype=dtype_of(raw),
        size_bytes=size_of(folder),
        has_tokenizer=any((folder / name).is_file() for name in TOKENIZERS),
        has_chat_template=has_chat_template(folder),
        problem=problem,
        hint=hint,
        shape=shape,
        memory=memory,
    )


def read_raw(folder: Path) -> dict[str, Any]:
    """`config.json` as it is. Raises `ModelError`."""
    return read_json(folder / "config.json")


def architecture_of(raw: dict[str, Any]) -> str:
    names = raw.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else str(raw.get("model_type") or "unknown")


def dtype_of(raw: dict[str, Any]) -> str:
    return str(raw.get("dtype") or raw.get("torch_dtype") or "unknown").removeprefix("torch.")


def size_of(folder: Path) -> int:
    """Bytes of the weight files."""
    if (folder / INDEX).is_file():
        return read_index(folder)[0].stat().st_size
    return sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file())


def has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    try:
        return config.is_file() and bool(read_json(config).get("chat_template"))
    except PieError:
        return False


def _shape(checkpoint: Checkpoint) -> Shape:
    config = checkpoint.config
    return Shape(
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        vocab_size=config.vocab_size,
        max_context_tokens=config.max_context_tokens,
        num_parameters=checkpoint.num_parameters,
    )


def _memory(checkpoint: Checkpoint, kv_memory: int) -> MemoryFacts:
    kernels: Kernels = "compiled" if why_not(checkpoint.config, PAGE_SIZE) is None else "torch"
    weights = {dtype: checkpoint.weight_bytes(dtype, kernels=kernels) for dtype in SHOWN_DTYPES}
    weights |= {quantize: checkpoint.weight_bytes("bfloat16", quantize, kernels=kernels) for quantize in QUANTIZED}
    return MemoryFacts(
        weights=weights,
        kv_per_token=kv_bytes_per_token(checkpoint.config, checkpoint.config.dtype, PAGE_SIZE),
        kv_memory=kv_memory,
        needed={dtype: Need(size, kv_memory).total for dtype, size in weights.items()},
        available=available_bytes(),
    )
