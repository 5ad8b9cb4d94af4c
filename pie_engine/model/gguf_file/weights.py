"""The numbers of a GGUF file's tensors."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch
from gguf import GGMLQuantizationType, quants
from torch import Tensor

from pie_engine.errors import ModelError


def read_tensor(
    path: Path, dtype: str, shape: tuple[int, ...], start: int, end: int, *, pairs: int = 0, add: float = 0.0
) -> Tensor:
    """The numbers [shape], in fp32 unless they are stored in half precision. Raises `ModelError`."""
    try:
        raw = numpy.memmap(path, numpy.uint8, "r", start, (end - start,))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="download it again") from error
    if dtype in ("F32", "F16", "BF16"):
        kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
        tensor = torch.from_numpy(numpy.array(raw)).view(kind).view(shape)
    else:
        rows = raw.reshape(*shape[:-1], -1)
        tensor = torch.from_numpy(quants.dequantize(rows, GGMLQuantizationType[dtype])).view(shape)
    if pairs:
        tensor = tensor.view(pairs, -1, 2, *shape[1:]).transpose(1, 2).reshape(shape)
    return tensor + add if add else tensor
