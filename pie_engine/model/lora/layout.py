"""Which projections of a model an adapter changes: every tensor of the file has its place, and every place its tensors.

PEFT names the tensors of a module `base_model.model.` + its name + `.lora_A.weight` [rank, inputs] and
`.lora_B.weight` [outputs, rank].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pie_engine.errors import ModelError, Unsupported
from pie_engine.model.checkpoint import TensorInfo
from pie_engine.model.description import ModelConfig
from pie_engine.model.fields import DTYPES
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.model.lora.settings import MERGE_HINT

Projection = Literal["qkv", "attention_out", "gate_up", "down"]
PROJECTIONS: tuple[Projection, ...] = ("qkv", "attention_out", "gate_up", "down")
_STORED_DTYPES = ("F32", "BF16", "F16")
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<before>(?:.+\.)?layers\.)(?P<layer>\d+)\.(?P<module>.+)\.lora_(?P<which>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class Part:
    """What an adapter adds to some neighbouring outputs of a projection: scale · B A x."""

    first_output: int
    num_outputs: int
    num_inputs: int
    rank: int
    scale: float
    a: str
    """Names of the tensors."""
    b: str


Layout = Mapping[tuple[int, Projection], tuple[Part, ...]]
"""By layer and projection, in the order of the outputs."""


@dataclass(frozen=True, slots=True)
class _Place:
    projection: Projection
    first_output: int
    num_outputs: int
    num_inputs: int


def layout_of(files: AdapterFiles, config: ModelConfig) -> Layout:
    """Raises `ModelError` or `Unsupported`, naming the tensor or the module."""
    if config.needs_transformers:
        raise Unsupported(
            f"{config.architecture} runs through Transformers, where adapters are not supported", hint=MERGE_HINT
        )
    found, before = _modules(files, config)
    layout: dict[tuple[int, Projection], tuple[Part, ...]] = {}
    for layer in range(config.num_layers):
        for module, place in _places(config, layer).items():
            name = f"{before}{layer}.{module}"
            is_there = (layer, module) in found
            if files.settings.targets(name, layer) and not is_there:
                raise _missing(files, f"{_PREFIX}{name}.lora_A.weight")
            if is_there:
                part = _part(files, name, place, found[layer, module])
                key = (layer, place.projection)
                layout[key] = (*layout.get(key, ()), part)
    return layout


def num_bytes(layout: Layout, dtype: str, *, rank_multiple: int = 1) -> int:
    """Memory of the matrices in `dtype`, where the ranks of a projection are filled up to a multiple."""
    count = 0
    for parts in layout.values():
        num_ranks = -(-sum(part.rank for part in parts) // rank_multiple) * rank_multiple
        count += num_ranks * parts[0].num_inputs + sum(part.rank * part.num_outputs for part in parts)
    return DTYPES[dtype] * count


def _places(config: ModelConfig, layer: int) -> dict[str, _Place]:
    """Every module of a layer that an adapter may change."""
    names, hidden, inner = config.names, config.hidden_size, config.intermediate_size
    query, key_value = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    places = {
        **_neighbours("qkv", names.qkv, (query, key_value, key_value), hidden),
        **_neighbours("attention_out", (names.attention_out,), (hidden,), query),
    }
    if not config.layers[layer].has_experts:
        places |= _neighbours("gate_up", names.gate_up, config.gate_up_sizes, hidden)
        places |= _neighbours("down", (names.down,), (hidden,), inner)
    return places


def _neighbours(
    projection: Projection, names: tuple[str, ...], sizes: tuple[int, ...], num_inputs: int
) -> dict[str, _Place]:
    """Modules that are run as one; a single name stands for all of `sizes`."""
    sizes = sizes if len(names) == len(sizes) else (sum(sizes),)
    firsts = [sum(sizes[:index]) for index in range(len(sizes))]
    return {
        name: _Place(projection, first, size, num_inputs)
        for name, first, size in zip(names, firsts, sizes, strict=True)
    }


def _modules(
    files: AdapterFiles, config: ModelConfig
) -> tuple[dict[tuple[int, str], dict[str, tuple[str, TensorInfo]]], str]:
    """By layer and module the tensors of the file, and what the module names begin with, up to the layer's number."""
    found: dict[tuple[int, str], dict[str, tuple[str, TensorInfo]]] = {}
    befores: set[str] = set()
    for tensor, info in files.tensors.items():
        match = _TENSOR.fullmatch(tensor.removeprefix(_PREFIX))
        if match is None:
            raise _unknown(files, tensor)
        layer, module = int(match["layer"]), match["module"]
        if layer >= config.num_layers:
            raise ModelError(
                f"{files.weights}: tensor {tensor} belongs to layer {layer}; {config.architecture} has "
                f"{config.num_layers} layers here",
                hint="the adapter was trained on another model",
            )
        if module not in _places(config, layer):
            raise _unknown(files, tensor)
        befores.add(match["before"])
        found.setdefault((layer, module), {})[match["which"]] = (tensor, info)
    if len(befores) != 1:
        what = "no tensors" if not befores else f"tensors of several models ({', '.join(sorted(befores))})"
        raise ModelError(f"{files.weights} holds {what}", hint="save the adapter again with PEFT")
    return found, befores.pop()


def _part(files: AdapterFiles, name: str, place: _Place, tensors: Mapping[str, tuple[str, TensorInfo]]) -> Part:
    rank = files.settings.rank_of(name)
    shapes = {"A": (rank, place.num_inputs), "B": (place.num_outputs, rank)}
    for which, shape in shapes.items():
        if which not in tensors:
            raise _missing(files, f"{_PREFIX}{name}.lora_{which}.weight")
        tensor, info = tensors[which]
        if info.shape != shape:
            raise ModelError(
                f"{files.weights}: tensor {tensor} has shape {list(info.shape)}, this model and the adapter's rank ask "
                f"for {list(shape)}",
                hint="the adapter was trained on another model, or its files do not belong together",
            )
        if info.dtype not in _STORED_DTYPES:
            raise Unsupported(
                f"{files.weights}: tensor {tensor} is stored as {info.dtype}",
                hint=f"supported: {', '.join(_STORED_DTYPES)}",
            )
    scale = files.settings.scale_of(name)
    return Part(place.first_output, place.num_outputs, place.num_inputs, rank, scale, tensors["A"][0], tensors["B"][0])


def _missing(files: AdapterFiles, tensor: str) -> ModelError:
    return ModelError(
        f"{files.weights} lacks tensor {tensor}",
        hint="adapter_config.json targets its module; do the files belong together, and to this model?",
    )


def _unknown(files: AdapterFiles, tensor: str) -> Unsupported:
    return Unsupported(
        f"{files.weights}: tensor {tensor} changes a module that adapters cannot change here",
        hint=f"the projections of attention and of gated MLPs can be changed, not embeddings, the output layer, "
        f"norms, routers and experts; {MERGE_HINT}",
    )
