"""The model families: each turns `config.json` into a description that the decoder runs. To add one: a file and a line.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import (
    cohere,
    cohere2,
    ernie4_5,
    exaone4,
    gemma,
    gemma2,
    gemma3,
    glm,
    glm4,
    gpt_neox,
    gpt_oss,
    granite,
    llama,
    ministral,
    mistral,
    mixtral,
    olmo2,
    olmo3,
    olmoe,
    phi,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    seed_oss,
    smollm3,
    stablelm,
    starcoder2,
)
from pie_engine.model.fields import Fields

FAMILIES: dict[str, Callable[[Fields], ModelConfig]] = {
    "LlamaForCausalLM": llama.describe,
    "MistralForCausalLM": mistral.describe,
    "Qwen2ForCausalLM": qwen2.describe,
    "Qwen3ForCausalLM": qwen3.describe,
    "MinistralForCausalLM": ministral.describe,
    "GemmaForCausalLM": gemma.describe,
    "Gemma2ForCausalLM": gemma2.describe,
    "Gemma3ForCausalLM": gemma3.describe,
    "Gemma3ForConditionalGeneration": gemma3.describe_multimodal,
    "PhiForCausalLM": phi.describe,
    "Phi3ForCausalLM": phi3.describe,
    "Olmo2ForCausalLM": olmo2.describe,
    "Olmo3ForCausalLM": olmo3.describe,
    "SmolLM3ForCausalLM": smollm3.describe,
    "GraniteForCausalLM": granite.describe,
    "GlmForCausalLM": glm.describe,
    "Glm4ForCausalLM": glm4.describe,
    "Exaone4ForCausalLM": exaone4.describe,
    "Ernie4_5ForCausalLM": ernie4_5.describe,
    "SeedOssForCausalLM": seed_oss.describe,
    "CohereForCausalLM": cohere.describe,
    "Cohere2ForCausalLM": cohere2.describe,
    "StableLmForCausalLM": stablelm.describe,
    "Starcoder2ForCausalLM": starcoder2.describe,
    "GPTNeoXForCausalLM": gpt_neox.describe,
    "MixtralForCausalLM": mixtral.describe,
    "Qwen3MoeForCausalLM": qwen3_moe.describe,
    "OlmoeForCausalLM": olmoe.describe,
    "GptOssForCausalLM": gpt_oss.describe,
}
"""By the first of `architectures`."""
QUANTIZED = {"GptOssForCausalLM": "mxfp4"}
"""The `quant_method` that a family reads."""
