"""The memory-bandwidth floor: no engine can decode one sequence faster than it can read the weights."""

from __future__ import annotations

import json
import math
import struct
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

BYTES_OF = {"float32": 4, "bfloat16": 2, "float16": 2}
BUFFER_BYTES = 1 << 30
"""Far more than any cache holds."""
NUM_READS = 7


@dataclass(frozen=True)
class Floor:
    """Least time per token of a dense model at batch 1."""

    weight_bytes: int
    """Read for each token."""
    bytes_per_s: float
    """Measured read bandwidth."""
    num_threads: int

    @property
    def tpot_ms(self) -> float:
        return 1e3 * self.weight_bytes / self.bytes_per_s

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "bytes_per_s": round(self.bytes_per_s), "tpot_ms": round(self.tpot_ms, 3)}


def floor_of(folder: Path, dtype: str, num_threads: int) -> Floor | None:
    """The floor of the checkpoint in `folder` when its weights are kept as `dtype`; None for one of another format."""
    num_bytes, threads = weight_bytes(folder, dtype), num_threads or 1
    return Floor(num_bytes, read_bandwidth(threads), threads) if num_bytes else None


def weight_bytes(folder: Path, dtype: str) -> int:
    """Bytes of the weights that a token passes through: all but an input embedding that is not the output's too.

    `dtype` `auto` is that of the file. 0 when there are no safetensors.
    """
    tensors = {name: entry for path in sorted(folder.glob("*.safetensors")) for name, entry in _header(path).items()}
    has_own_output = any(name.endswith("lm_head.weight") for name in tensors)
    return sum(
        _num_bytes(entry, dtype)
        for name, entry in tensors.items()
        if not (has_own_output and name.endswith("embed_tokens.weight"))
    )


def _header(path: Path) -> dict[str, dict[str, list[int]]]:
    """Names, shapes and offsets: a little-endian length, then JSON (https://huggingface.co/docs/safetensors)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


def _num_bytes(entry: dict[str, list[int]], dtype: str) -> int:
    start, end = entry["data_offsets"]
    return end - start if dtype == "auto" else math.prod(entry["shape"]) * BYTES_OF[dtype]


@cache
def read_bandwidth(num_threads: int) -> float:
    """Bytes a second that `num_threads` threads read from a buffer of `BUFFER_BYTES`, the best of `NUM_READS`."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        buffer = torch.ones(BUFFER_BYTES // 4)
        return BUFFER_BYTES / min(_seconds_of_sum(buffer) for _ in range(NUM_READS))
    finally:
        torch.set_num_threads(before)


def _seconds_of_sum(buffer: object) -> float:
    started = time.perf_counter()
    buffer.sum()  # type: ignore[attr-defined]
    return time.perf_counter() - started
