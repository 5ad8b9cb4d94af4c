"""The tensors of a GGUF file under the names of a Hugging Face checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gguf

from pie_engine.errors import Unsupported
from pie_engine.model.gguf_file.header import Header
from pie_engine.model.gguf_file.index import BLOCKS

_PERMUTED = frozenset({"llama", "granite"})
"""Architectures whose query and key rows llama.cpp keeps as neighbouring pairs instead of halves."""
_OFFSET_NORMS = frozenset({"gemma2", "gemma3"})
"""Those whose norm weights Transformers stores as their difference from one, and GGUF as they are."""


def table(header: Header, expected: dict[str, tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    """Where each of the `expected` tensors lies, by its Hugging Face name; what is missing is left out.

    `pairs`: the number of heads whose rows are permuted, 0: none. `add`: what to add to the numbers.
    """
    return dict(_entries(header, expected))


def _entries(header: Header, expected: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, dict[str, Any]]]:

    architecture = gguf.MODEL_ARCH(
        next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == header.architecture)
    )
    names = gguf.get_tensor_name_map(architecture, header.need("block_count"))
    for name in expected:
        # llama.cpp has no head for the Gemmas, since theirs is always tied.
        stored = header.tensors.get(names.get_name(name, (".weight", ".bias")) or "")
        if stored is None:
            continue
        if stored.dtype not in BLOCKS:
            raise Unsupported(
                f"{header.path}: tensor {name} is stored as {stored.dtype}", hint=f"supported: {', '.join(BLOCKS)}"
            )
        yield (
            name,
            {
                "dtype": stored.dtype,
                "shape": stored.shape,
                "start": stored.start,
                "end": stored.end,
                "pairs": _num_permuted_heads(header, name),
                "add": -1.0 if header.architecture in _OFFSET_NORMS and name.endswith("norm.weight") else 0.0,
            },
        )


def _num_permuted_heads(header: Header, name: str) -> int:
    if header.architecture not in _PERMUTED:
        return 0
    heads = header.need("attention.head_count")
    if ".q_proj." in name:
        return int(heads)
    return int(header.get("attention.head_count_kv", heads)) if ".k_proj." in name else 0
