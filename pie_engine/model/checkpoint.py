"""Find and check a Hugging Face model folder, without reading the weights themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pie_engine.errors import ModelError, NotFound, Unsupported
from pie_engine.model.config import read_config, read_json
from pie_engine.model.description import Kernels, ModelConfig
from pie_engine.model.fields import DTYPES
from pie_engine.model.gguf_file import index as gguf_file
from pie_engine.model.gguf_file.index import BLOCKS, KEPT, num_bytes
from pie_engine.model.kernels.blocks import BLOCKS as KINDS
from pie_engine.model.kernels.blocks import WIDTH
from pie_engine.model.kernels.support import has_whole_heads
from pie_engine.model.quantization import HEAD_KIND, Quantization, can_quantize, quantized_bytes
from pie_engine.model.tensors import expected_tensors

_STORED_DTYPES = ("F32", "BF16", "F16")
_MAX_HEADER_BYTES = 100_000_000
_SAMPLE_BYTES = 256
_PACKED = ("_blocks", "_scales")
"""How the names of MXFP4 tensors end, which are stored as bytes."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: bytes `start` to `end` of `file`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    pairs: int = 0
    """Heads whose rows a GGUF file has as neighbouring pairs; 0: none."""
    add: float = 0.0
    """What a GGUF file has been given less."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder whose configuration and tensor headers have been checked."""

    folder: Path
    config: ModelConfig
    tensors: dict[str, TensorInfo]
    model_id: str
    """Hex digest over the configuration and, per file, its size, its header and `_SAMPLE_BYTES` from the middle of
    each tensor. It takes milliseconds whatever the model's size and tells fine-tunes of one model apart, because
    training changes every tensor that it touches nearly everywhere; it is no protection against forgery."""

    @classmethod
    def open(cls, folder: str | Path, *, max_context_tokens: int = 0) -> Checkpoint:
        """Check `folder`; raises `NotFound`, `ModelError` or `Unsupported`, each naming the file and the field.

        `max_context_tokens` is the longest context that will be asked for; 0: the model's own.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise NotFound(f"model folder {folder} does not exist", hint="check the path")
        config = read_config(folder, max_context_tokens)
        tensors = read_tensors(folder)
        names = next((names for names in config.other_names if f"{names.embedding}.weight" in tensors), config.names)
        config = replace(config, names=names)
        if not config.needs_transformers:
            _check_tensors(tensors, config, folder)
        return cls(folder, config, tensors, _model_id(folder, tensors, config))

    @property
    def num_parameters(self) -> int:
        return sum(_num_numbers(name, self.tensors[name].shape) for name in self._names)

    @property
    def _names(self) -> Iterable[str]:
        """Of the tensors that are loaded."""
        return self.tensors if self.config.needs_transformers else expected_tensors(self.config)

    def kept_kind(self, name: str) -> str | None:
        """The kind of `kernels.blocks` as which the compiled kernels keep a matrix of a GGUF file; None: in numbers."""
        info = self.tensors[name]
        is_kept = info.file.suffix == ".gguf" and len(info.shape) == 2 and not info.add
        return KEPT.get(info.dtype) if is_kept and has_whole_heads(self.config) else None

    def _may_quantize(self, name: str) -> bool:
        """Matrices of the layers, but not routers."""
        names = self.config.names
        return name.startswith(names.layers) and not name.endswith(f".{names.router}.weight")

    def weight_kinds(self, dtype: str, quantize: Quantization = "none", *, kernels: Kernels = "torch") -> list[str]:
        """How weights lie in memory: in `dtype`, quantized, or as the file has them."""
        if quantize != "none":
            return sorted({dtype, quantize, HEAD_KIND if kernels == "compiled" else dtype})
        names = self._names if kernels == "compiled" else ()
        kinds = {self.kept_kind(name) or dtype for name in names if len(self.tensors[name].shape) > 1}
        return sorted(kinds) or [dtype]

    def weight_bytes(self, dtype: str, quantize: Quantization = "none", *, kernels: Kernels = "torch") -> int:
        """Memory that the weights need in `dtype`, with the matrices of the layers quantized.

        What a GGUF file has in few bits the compiled kernels keep, unless it is quantized anew; the head is quantized
        for them, too.
        """
        total, names = 0, self.config.names
        is_head_quantized = kernels == "compiled" and quantize != "none"
        head = f"{names.embedding if self.config.tie_embeddings else names.head}.weight" if is_head_quantized else ""
        for name in self._names:
            shape = self.tensors[name].shape
            kept = self.kept_kind(name) if kernels == "compiled" and quantize == "none" else None
            if kept is not None:
                total += shape[0] * KINDS[kept].panel_bytes(shape[1]) // WIDTH
            elif self._may_quantize(name) and len(shape) == 2 and can_quantize(quantize, *shape[::-1]):
                total += quantized_bytes(quantize, *shape[::-1])
            elif name == head:
                total += quantized_bytes(HEAD_KIND, *shape[::-1])
            else:
                total += _num_elements(shape) * DTYPES[dtype]
        return total


def read_tensors(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of the folder, from `model.safetensors`, the shards that the index names, or a GGUF file."""
    if (folder / gguf_file.INDEX).is_file():
        path, entries = gguf_file.read_index(folder)
        return {name: TensorInfo(path, **entry | {"shape": tuple(entry["shape"])}) for name, entry in entries.items()}
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return dict(read_header(single))
    if not index.is_file():
        hint = "convert the checkpoint to safetensors" if any(folder.glob("*.bin")) else "is the download complete?"
        raise ModelError(f"{folder} has neither model.safetensors nor model.safetensors.index.json", hint=hint)
    return _read_shards(folder, index)


def _read_shards(folder: Path, index: Path) -> dict[str, TensorInfo]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelError(f"{index} has no weight_map from tensor names to files", hint="download the model again")
    tensors: dict[str, TensorInfo] = {}
    for name in sorted(set(weight_map.values())):
        shard = folder / name
        if Path(name).name != name or not shard.is_file():
            num_tensors = sum(file == name for file in weight_map.values())
            raise ModelError(
                f"{index.name} names {name}, which is not in {folder} ({num_tensors} tensors are in it)",
                hint="the download is incomplete; download the model again",
            )
        tensors.update(read_header(shard))
    return tensors


def read_header(path: Path) -> Iterator[tuple[str, TensorInfo]]:
    """The tensors of one safetensors file: 8 bytes of header length, a JSON header, the data.

    https://huggingface.co/docs/safetensors (format)
    """
    try:
        found_bytes, raw = _raw_header(path)
        entries = {name: entry for name, entry in json.loads(raw).items() if name != "__metadata__"}
        infos = {name: _tensor_info(path, entry, 8 + len(raw)) for name, entry in entries.items()}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} has a damaged safetensors header: {error}", hint="download the model again"
        ) from error
    _check_size(path, max((info.end for info in infos.values()), default=8 + len(raw)), found_bytes, part="data")
    yield from infos.items()


def _raw_header(path: Path) -> tuple[int, bytes]:
    """Size of the file, and the JSON text of its header."""
    found_bytes = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if found_bytes < 8 or header_bytes > _MAX_HEADER_BYTES:
            raise ModelError(f"{path} is not a safetensors file", hint="download the model again")
        _check_size(path, 8 + header_bytes, found_bytes, part="header")
        return found_bytes, file.read(header_bytes)


def _tensor_info(path: Path, entry: dict[str, Any], data_start: int) -> TensorInfo:
    start, end = (data_start + int(offset) for offset in entry["data_offsets"])
    if not data_start <= start <= end:
        raise ValueError(f"offsets {entry['data_offsets']}")
    return TensorInfo(path, str(entry["dtype"]), tuple(int(size) for size in entry["shape"]), start, end)


def _check_size(path: Path, expected: int, found: int, *, part: str) -> None:
    if found < expected:
        raise ModelError(
            f"{path} is truncated in its {part}: expected {expected} bytes, found {found}",
            hint="the download is incomplete; download the model again",
        )


def _source(folder: Path) -> Path:
    """Where somebody would look for a tensor."""
    if (folder / gguf_file.INDEX).is_file():
        return gguf_file.read_index(folder)[0]
    index = folder / "model.safetensors.index.json"
    return index if index.is_file() else folder / "model.safetensors"


def _check_tensors(tensors: dict[str, TensorInfo], config: ModelConfig, folder: Path) -> None:
    expected = expected_tensors(config)
    missing = [name for name in expected if name not in tensors]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{_source(folder)} lacks tensor {missing[0]}{more}",
            hint=f"config.json describes {len(expected)} tensors of {config.architecture}; do the files belong to it?",
        )
    for name, shape in expected.items():
        info = tensors[name]
        if info.shape != shape:
            raise ModelError(
                f"{info.file}: tensor {name} has shape {list(info.shape)}, config.json asks for {list(shape)}",
                hint="config.json and the weights belong to different models",
            )
        supported = BLOCKS if info.file.suffix == ".gguf" else _STORED_DTYPES
        if info.dtype not in supported and not (info.dtype == "U8" and name.endswith(_PACKED)):
            raise Unsupported(
                f"{info.file}: tensor {name} is stored as {info.dtype}", hint=f"supported: {', '.join(supported)}"
            )
        if info.end - info.start != num_bytes(info.dtype, _num_elements(shape)):
            raise ModelError(f"{info.file}: tensor {name} has the wrong number of bytes", hint="download it again")


def _num_numbers(name: str, shape: tuple[int, ...]) -> int:
    """Once unpacked: a byte of MXFP4 is two, a scale none of its own."""
    return 0 if name.endswith("_scales") else _num_elements(shape) * (2 if name.endswith("_blocks") else 1)


def _num_elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _model_id(folder: Path, tensors: dict[str, TensorInfo], config: ModelConfig) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update((folder / "config.json").read_bytes())
    ropes = {layer.rope for layer in config.layers if layer.rope is not None}
    # What the limit on the context can change.
    digest.update(repr(sorted((rope.theta, rope.factors) for rope in ropes)).encode())
    by_file: dict[Path, list[tuple[str, TensorInfo]]] = {}
    for name, info in sorted(tensors.items()):
        by_file.setdefault(info.file, []).append((name, info))
    for path, entries in sorted(by_file.items()):
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            for name, info in entries:
                digest.update(f"{name}\0{info.dtype}\0{info.shape}\0{info.start}\0".encode())
                file.seek((info.start + info.end) // 2)
                digest.update(file.read(min(_SAMPLE_BYTES, info.end - file.tell())))
    return digest.hexdigest()
