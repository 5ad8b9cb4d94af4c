"""The tensors of a GGUF file under the names of a Hugging Face checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gguf

from pie_engine.errors import ModelError, Unsupported
from pie_engine.model.gguf_file.header import Header, Stored
from pie_engine.model.gguf_file.index import BLOCKS

_PERMUTED = frozenset({"llama", "granite", "smollm3"})
"""Architectures whose query and key rows llama.cpp keeps as neighbouring pairs instead of halves."""
_OFFSET_NORMS = frozenset({"gemma", "gemma2", "gemma3"})
"""Those whose norm weights Transformers stores as their difference from one, and GGUF as they are."""
_EXPERT = re.compile(r"(?<=\.experts\.)(\d+)\.")
_IGNORED = (".attn_rot_embd.weight", ".rope_freqs.weight", ".attention.rotary_emb.inv_freq")
"""Tensors that some files have besides, and that say nothing new."""


def table(header: Header, expected: dict[str, tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    """Where each of the `expected` tensors lies, by its Hugging Face name; what is missing is left out.

    `pairs`: the number of heads whose rows are permuted, 0: none. `add`: what to add to the numbers. Raises
    `Unsupported` for a type that cannot be read, and for tensors of layers that nobody expects: without them it would
    be another model.
    """
    places = dict(_places(header, expected))
    used = {place for place, _ in places.values()}
    for place in header.tensors:
        if place.startswith("blk.") and place not in used and not place.endswith(_IGNORED):
            raise Unsupported(
                f"{header.path}: tensor {place} is not one that `{header.architecture}` has here",
                hint="this variant of the architecture is not supported; or use its safetensors",
            )
    return dict(_entries(header, places))


def _places(header: Header, expected: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, tuple[str, int | None]]]:
    """By the Hugging Face name, that of the file, and of experts, which lie in one tensor, the number."""
    architecture = gguf.MODEL_ARCH(
        next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == header.architecture)
    )
    names = gguf.get_tensor_name_map(architecture, header.need("block_count"))
    for name in expected:
        expert = _EXPERT.search(name)
        # llama.cpp has no head for the Gemmas, since theirs is always tied.
        stored = names.get_name(_EXPERT.sub("", name), (".weight", ".bias"))
        if stored is None or stored not in header.tensors:
            continue
        number = int(expert[1]) if expert else None
        count = header.tensors[stored].shape[0]
        if number is not None and number >= count:
            raise ModelError(
                f"{header.path}: tensor {stored} has {count} experts, the metadata say {header.get('expert_count')}",
                hint="download it again",
            )
        yield name, (stored, number)


def _entries(header: Header, places: dict[str, tuple[str, int | None]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, (place, expert) in places.items():
        stored = header.tensors[place]
        if expert is not None:
            stored = _slice(stored, expert)
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


def _slice(stored: Stored, index: int) -> Stored:
    """One of the matrices that a tensor is made of."""
    count, *shape = stored.shape
    size = (stored.end - stored.start) // count
    start = stored.start + size * index
    return replace(stored, shape=tuple(shape), start=start, end=start + size)


def _num_permuted_heads(header: Header, name: str) -> int:
    if header.architecture not in _PERMUTED:
        return 0
    heads = header.need("attention.head_count")
    if ".q_proj." in name:
        return int(heads)
    return int(header.get("attention.head_count_kv", heads)) if ".k_proj." in name else 0
