"""Adapters as files, without torch and PEFT: their tensors are ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

SETTINGS: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "somebody/something",
    "inference_mode": True,
    "r": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj"],
    "bias": "none",
    "use_dora": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "runtime_config": {"ephemeral_gpu_offload": False},
}
NAME = "base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{which}.weight"


def write_files(
    folder: Path, tensors: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any] | None = None, value: float = 1.0
) -> Path:
    """`tensors`: the shape of each; `settings` are put over `SETTINGS`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, **(settings or {})}))
    arrays = {name: np.full(shape, value, np.float32) for name, shape in tensors.items()}
    save_file(arrays, folder / "adapter_model.safetensors")
    return folder


def tensors_of(hidden: int, outputs: int, *, rank: int = 2, num_layers: int = 2) -> dict[str, tuple[int, ...]]:
    """Of the query projections of a model."""
    shapes = {"A": (rank, hidden), "B": (outputs, rank)}
    return {
        NAME.format(layer=layer, which=which): shape for layer in range(num_layers) for which, shape in shapes.items()
    }


def write_small(folder: Path, value: float = 1.0, **settings: Any) -> Path:
    """For drivers that do not look at it."""
    return write_files(folder, tensors_of(8, 8), settings, value)
