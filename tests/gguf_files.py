"""GGUF files of small checkpoints, written as llama.cpp's converter writes them, with the library's writer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from safetensors.torch import load_file, save_file

SIZES = {
    "hidden_size": "add_embedding_length",
    "intermediate_size": "add_feed_forward_length",
    "num_hidden_layers": "add_block_count",
    "num_attention_heads": "add_head_count",
    "num_key_value_heads": "add_head_count_kv",
    "max_position_embeddings": "add_context_length",
    "rms_norm_eps": "add_layer_norm_rms_eps",
    "layer_norm_eps": "add_layer_norm_eps",
    "norm_epsilon": "add_layer_norm_eps",
    "head_dim": "add_key_length",
    "num_experts_per_tok": "add_expert_used_count",
    "num_experts": "add_expert_count",
    "num_local_experts": "add_expert_count",
    "moe_intermediate_size": "add_expert_feed_forward_length",
    "logit_scale": "add_logit_scale",
    "use_parallel_residual": "add_parallel_residual",
    "sliding_window": "add_sliding_window",
    "attn_logit_softcapping": "add_attn_logit_softcapping",
    "final_logit_softcapping": "add_final_logit_softcapping",
    "attention_multiplier": "add_attention_scale",
    "embedding_multiplier": "add_embedding_scale",
    "residual_multiplier": "add_residual_scale",
    "logits_scaling": "add_logit_scale",
}
"""By the field of config.json, what the writer calls it."""
PERMUTED = ("llama", "granite", "smollm3")
GEMMAS = ("gemma", "gemma2", "gemma3")
ARCHITECTURES = {
    "gemma3_text": "gemma3",
    "mixtral": "llama",
    "qwen3_moe": "qwen3moe",
    "olmo3": "olmo2",
    "phi": "phi2",
    "cohere": "command-r",
}
"""By the model type, where it is another."""
TINY_TOKENS = {"eos_token_id": 2, "bos_token_id": 1, "unknown_token_id": 0}


def write_gguf(
    path: Path,
    folder: Path,
    kind: str = "F32",
    others: dict[str, str] | None = None,
    *,
    more: str = "",
    skip: str = "",
    **tokenizer: Any,
) -> Path:
    """The checkpoint of `folder` as a GGUF file whose matrices have the type `kind`, and those whose name holds a key
    of `others` that one; with a tensor `more` that does not belong there, without the tensor `skip`. What the file then
    holds is written back to `folder`, so that both are the same model: types with fewer bits lose something."""
    raw = json.loads((folder / "config.json").read_text())
    architecture = ARCHITECTURES.get(raw["model_type"], raw["model_type"])
    writer = gguf.GGUFWriter(path, architecture)
    _add_sizes(writer, raw)
    _add_tokenizer(writer, raw, **tokenizer)
    names = gguf.get_tensor_name_map(
        next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture), raw["num_hidden_layers"]
    )
    changed: dict[str, torch.Tensor] = {}
    stacks: dict[str, list[numpy.ndarray]] = {}
    kinds: dict[str, str] = {}
    for name, tensor in sorted(load_file(folder / "model.safetensors").items(), key=_by_expert):
        is_matrix = tensor.dim() == 2
        of_others = [other for part, other in (others or {}).items() if part in name]
        kind_here = (of_others or [kind])[0] if is_matrix else "F32"
        data, changed[name] = _encoded(_as_llama_cpp(tensor.float(), name, architecture, raw), kind_here)
        changed[name] = _from_llama_cpp(changed[name], name, architecture, raw)
        stored = names.get_name(re.sub(r"\.experts\.\d+\.", ".experts.", name), (".weight", ".bias"))
        assert stored is not None, name
        stacks.setdefault(stored, []).append(data)
        kinds[stored] = kind_here
    if more:
        writer.add_tensor(more, numpy.zeros(16, numpy.float32))
    stacks.pop(skip, None)
    for stored, stack in stacks.items():
        data = numpy.stack(stack) if "_exps" in stored else stack[0]
        writer.add_tensor(stored, data, raw_dtype=gguf.GGMLQuantizationType[kinds[stored]])
    if (factors := _llama3_factors(raw)) is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _by_expert(entry: tuple[str, torch.Tensor]) -> tuple[str, int]:
    """Experts in the order of their numbers."""
    number = re.search(r"\.experts\.(\d+)\.", entry[0])
    return (entry[0], 0) if number is None else (entry[0].replace(number[0], "."), int(number[1]))


def _add_sizes(writer: gguf.GGUFWriter, raw: dict[str, Any]) -> None:
    for field, method in SIZES.items():
        if raw.get(field) is not None:
            getattr(writer, method)(raw[field])
    if raw["model_type"] == "olmo3":
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in raw["layer_types"]])
    rope = raw.get("rope_parameters") or {}
    full = rope.get("full_attention", rope)
    if "partial_rotary_factor" in full:
        heads = raw["num_attention_heads"]
        head_dim = raw.get("head_dim") or raw["hidden_size"] // heads
        writer.add_rope_dimension_count(int(full["partial_rotary_factor"] * head_dim))
    writer.add_rope_freq_base(full.get("rope_theta", raw.get("rope_theta", 10000.0)))
    if full.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(full["rope_type"]))
        writer.add_rope_scaling_factor(full["factor"])
    if "original_max_position_embeddings" in full and full["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(full["original_max_position_embeddings"])


def _add_tokenizer(writer: gguf.GGUFWriter, raw: dict[str, Any], **fields: Any) -> None:
    """By default a vocabulary that is only as large as it has to be."""
    tokens = fields.pop("tokens", ["t", "1", *(f"t{index}" for index in range(1, raw["vocab_size"] - 1))])
    writer.add_tokenizer_model(fields.pop("model", "gpt2"))
    writer.add_tokenizer_pre(fields.pop("pre", "gpt-2"))
    writer.add_token_list(tokens)
    writer.add_token_types(fields.pop("types", [gguf.TokenType.NORMAL] * len(tokens)))
    writer.add_token_merges(fields.pop("merges", ["t 1"]))
    if scores := fields.pop("scores", None):
        writer.add_token_scores(scores)
    if template := fields.pop("chat_template", None):
        writer.add_chat_template(template)
    writer.add_bos_token_id(fields.pop("bos", 1))
    writer.add_eos_token_id(fields.pop("eos", 2))
    for name, value in fields.items():
        getattr(writer, name)(value)


def _as_llama_cpp(tensor: torch.Tensor, name: str, architecture: str, raw: dict[str, Any]) -> torch.Tensor:
    """After `LlamaModel.permute` and `GemmaModel.modify_tensors` of llama.cpp's convert_hf_to_gguf.py."""
    if heads := _heads(name, architecture, raw):
        half = tensor.shape[0] // heads // 2
        return tensor.reshape(heads, 2, half, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
    return tensor + 1 if architecture in GEMMAS and name.endswith("norm.weight") else tensor


def _from_llama_cpp(tensor: torch.Tensor, name: str, architecture: str, raw: dict[str, Any]) -> torch.Tensor:
    if heads := _heads(name, architecture, raw):
        half = tensor.shape[0] // heads // 2
        return tensor.reshape(heads, half, 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape).contiguous()
    return tensor - 1 if architecture in GEMMAS and name.endswith("norm.weight") else tensor


def _heads(name: str, architecture: str, raw: dict[str, Any]) -> int:
    if architecture not in PERMUTED:
        return 0
    return raw["num_attention_heads"] if ".q_proj." in name else raw["num_key_value_heads"] if ".k_proj." in name else 0


def _encoded(tensor: torch.Tensor, kind: str) -> tuple[numpy.ndarray, torch.Tensor]:
    """What goes into the file, and the numbers that it stands for."""
    data = tensor.contiguous().numpy()
    kind_id = gguf.GGMLQuantizationType[kind]
    if kind in ("Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K"):
        encoded = _random_blocks(data, kind_id)
    else:
        encoded = gguf.quants.quantize(data, kind_id)
    return encoded, torch.from_numpy(gguf.quants.dequantize(encoded, kind_id)).view(tensor.shape).clone()


def _random_blocks(data: numpy.ndarray, kind: gguf.GGMLQuantizationType) -> numpy.ndarray:
    """The library cannot write these: random blocks of about the right size."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    generator = numpy.random.default_rng(data.size)
    blocks = generator.integers(0, 256, (data.size // block, size), dtype=numpy.uint8)
    scale = numpy.frombuffer(numpy.float16(data.std() / 600).tobytes(), numpy.uint8)
    for at in {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q2_K": (80, 82), "Q3_K": (108,)}[kind.name]:
        blocks[:, at : at + 2] = scale
    return blocks.reshape(data.shape[0], -1)


def _llama3_factors(raw: dict[str, Any]) -> numpy.ndarray | None:
    """Llama 3's rotary scaling as one divisor a frequency: `LlamaModel.generate_extra_tensors` of the converter."""
    rope = raw.get("rope_parameters") or {}
    if rope.get("rope_type") != "llama3":
        return None
    head_dim = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    freqs = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    length = rope["original_max_position_embeddings"]
    found = []
    for wavelength in (2 * torch.pi / freqs).tolist():
        smooth = (length / wavelength - low) / (high - low)
        blended = 1 / ((1 - smooth) / factor + smooth)
        found.append(1.0 if wavelength < length / high else factor if wavelength > length / low else blended)
    return numpy.array(found, dtype=numpy.float32)
