"""The metadata and the tensor table of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pie_engine.errors import ModelError, Unsupported

MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of the file: bytes `start` to `end`, `shape` with the rows first."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Stored]
    rope_factors: list[float] = field(default_factory=list)
    """Divisors of the rotary frequencies, which files of Llama 3.1 and later carry as a tensor."""

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def get(self, name: str, default: Any = None) -> Any:
        """A value of the architecture's own, such as `block_count`."""
        return self.metadata.get(f"{self.architecture}.{name}", default)

    def need(self, name: str) -> Any:
        """The same, where there must be one. Raises `ModelError`."""
        value = self.get(name)
        if value is None:
            raise ModelError(f"{self.path} has no {self.architecture}.{name}", hint="is it a whole language model?")
        return value


def read_header(path: Path) -> Header:
    """Read everything but the weights. Raises `ModelError` for a file that is no GGUF or is cut off."""
    try:
        import gguf
    except ImportError as error:
        raise Unsupported("reading GGUF files needs the package gguf", hint="install Pie's extra `engine`") from error
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ModelError(f"{path} is not a GGUF file", hint="download it again")
        reader = gguf.GGUFReader(path)
        metadata = {name: value.contents() for name, value in reader.fields.items()}
        tensors = {
            str(tensor.name): Stored(
                dtype=tensor.tensor_type.name,
                shape=tuple(int(size) for size in reversed(tensor.shape)),
                start=int(tensor.data_offset),
                end=int(tensor.data_offset + tensor.n_bytes),
            )
            for tensor in reader.tensors
        }
        factors = [tensor.data.tolist() for tensor in reader.tensors if tensor.name == "rope_freqs.weight"]
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise ModelError(f"{path} is damaged or cut off: {error}", hint="download it again") from error
    return Header(path, metadata, tensors, factors[0] if factors else [])
