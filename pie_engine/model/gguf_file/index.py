"""Where the tensors of an unpacked GGUF file lie: `gguf.json` of its folder, which needs no library to be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pie_engine.errors import ModelError
from pie_engine.model.config import read_json

INDEX = "gguf.json"
BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
"""Numbers in a block and its bytes, for each type that can be read."""
KEPT = {
    "Q8_0": "q8_0",
    "Q5_0": "q8_0",
    "Q4_0": "q4_0",
    "Q4_1": "q4_1",
    "Q4_K": "q4_k",
    "Q5_K": "q5_k",
    "Q6_K": "q6_k",
}
"""Types that the compiled kernels multiply as they are, and the kind of `kernels.blocks` that each becomes."""


def read_index(folder: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The file, and its tensors by their Hugging Face names. Raises `ModelError` when the file is gone or another."""
    index = read_json(folder / INDEX)
    path = Path(index["file"])
    if not path.is_file() or path.stat().st_size != index["size"]:
        raise ModelError(f"{path} is gone or has changed since it was looked at", hint="name the file itself again")
    return path, index["tensors"]


def num_bytes(dtype: str, num_elements: int) -> int:
    """What a tensor takes in a file; of a type that is not known, a byte for each."""
    block, size = BLOCKS.get(dtype, (1, 1))
    return -(-num_elements // block) * size
