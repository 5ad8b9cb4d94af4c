"""The numbers of a GGUF file's tensors."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch
from gguf import GGMLQuantizationType, quants
from torch import Tensor

from pie_engine.errors import ModelError
from pie_engine.model.gguf_file.blocks import quants_of
from pie_engine.model.gguf_file.index import BLOCKS
from pie_engine.model.quants import Quants


def read_tensor(
    path: Path, dtype: str, shape: tuple[int, ...], start: int, end: int, *, pairs: int = 0, add: float = 0.0
) -> Tensor:
    """The numbers [shape], in fp32 unless they are stored in half precision. Raises `ModelError`."""
    raw = _read(path, start, end)
    if dtype in ("F32", "F16", "BF16"):
        kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
        tensor = torch.from_numpy(numpy.array(raw)).view(kind).view(shape)
    else:
        rows = raw.reshape(*shape[:-1], -1)
        tensor = torch.from_numpy(quants.dequantize(rows, GGMLQuantizationType[dtype])).view(shape)
    if pairs:
        tensor = tensor[_unpaired(pairs, shape[0])]
    return tensor + add if add else tensor


def read_quants(path: Path, dtype: str, shape: tuple[int, ...], start: int, end: int, *, pairs: int = 0) -> Quants:
    """A matrix [shape] of few bits as it is; `dtype` is one of `index.KEPT`. Raises `ModelError`."""
    raw = torch.from_numpy(numpy.array(_read(path, start, end)))
    quants = quants_of(dtype, raw.view(shape[0], -1, BLOCKS[dtype][1]))
    return quants.select(_unpaired(pairs, shape[0])) if pairs else quants


def _read(path: Path, start: int, end: int) -> numpy.ndarray:
    try:
        return numpy.memmap(path, numpy.uint8, "r", start, (end - start,))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="download it again") from error


def _unpaired(num_heads: int, num_rows: int) -> Tensor:
    """The rows in halves of each head, which the file has as neighbouring pairs."""
    return torch.arange(num_rows).view(num_heads, -1, 2).transpose(1, 2).reshape(-1)
