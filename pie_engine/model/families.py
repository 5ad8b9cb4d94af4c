"""Which class runs which architecture. To add a family: a file beside `llama.py` and a line here."""

from __future__ import annotations

import torch

from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.llama import Llama

FAMILIES: dict[str, type[Llama]] = {
    "LlamaForCausalLM": Llama,
    "MistralForCausalLM": Llama,
}


def load_model(checkpoint: Checkpoint, dtype: torch.dtype) -> Llama:
    """The checkpoint's weights in memory, ready to run."""
    return FAMILIES[checkpoint.config.architecture](checkpoint, dtype)
