"""The model families: each turns `config.json` into a description that the decoder runs. To add one: a file and a line.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama, mistral, qwen2, qwen3
from pie_engine.model.fields import Fields

FAMILIES: dict[str, Callable[[Fields], ModelConfig]] = {
    "LlamaForCausalLM": llama.describe,
    "MistralForCausalLM": mistral.describe,
    "Qwen2ForCausalLM": qwen2.describe,
    "Qwen3ForCausalLM": qwen3.describe,
}
"""By the first of `architectures`."""
