"""Small random LoRA adapters, written by PEFT itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = {
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    "mixtral": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
    "starcoder2": ["q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"],
    "gpt-neox": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "gpt-oss": ["q_proj", "k_proj", "v_proj", "o_proj"],
}
"""Every module that an adapter may change, where it is not all of `PROJECTIONS`."""


def write_adapter(folder: Path, model: Path, *, seed: int = 0, gain: float = 0.7, **settings: Any) -> Path:
    """An adapter of the checkpoint `model` whose matrices are random, both; `settings` are those of `LoraConfig`."""
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": PROJECTIONS, **settings})
    adapted = peft.get_peft_model(base, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if ".lora_" in name:
                weight.normal_(0.0, gain / weight.shape[-1] ** 0.5, generator=generator)
    adapted.save_pretrained(folder)
    return folder


def targets_of(shape: str) -> list[str]:
    return TARGETS.get(shape.partition("-")[0] if shape not in TARGETS else shape, PROJECTIONS)
