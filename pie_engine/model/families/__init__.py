"""The model families: each turns `config.json` into a description that the decoder runs. To add one: a file and a line.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import (
    gemma2,
    gemma3,
    gpt_oss,
    granite,
    llama,
    mistral,
    mixtral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    smollm3,
)
from pie_engine.model.fields import Fields

FAMILIES: dict[str, Callable[[Fields], ModelConfig]] = {
    "LlamaForCausalLM": llama.describe,
    "MistralForCausalLM": mistral.describe,
    "Qwen2ForCausalLM": qwen2.describe,
    "Qwen3ForCausalLM": qwen3.describe,
    "Gemma2ForCausalLM": gemma2.describe,
    "Gemma3ForCausalLM": gemma3.describe,
    "Gemma3ForConditionalGeneration": gemma3.describe_multimodal,
    "Phi3ForCausalLM": phi3.describe,
    "Olmo2ForCausalLM": olmo2.describe,
    "SmolLM3ForCausalLM": smollm3.describe,
    "GraniteForCausalLM": granite.describe,
    "MixtralForCausalLM": mixtral.describe,
    "Qwen3MoeForCausalLM": qwen3_moe.describe,
    "GptOssForCausalLM": gpt_oss.describe,
}
"""By the first of `architectures`."""
QUANTIZED = {"GptOssForCausalLM": "mxfp4"}
"""The `quant_method` that a family reads."""
