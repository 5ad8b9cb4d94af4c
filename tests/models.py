"""Small random checkpoints in the formats that people have, written by Transformers itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import decoders, normalizers, pre_tokenizers
from tokenizers import models as bpe_models

SHAPES: dict[str, dict[str, Any]] = {
    "mha": {},
    "gqa-tied": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama3-rope": {
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "linear-rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    "yarn-rope": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "biases": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2},
    "wide-heads": {"head_dim": 24, "num_key_value_heads": 2},
    "odd": {
        "hidden_size": 72,
        "intermediate_size": 100,
        "head_dim": 20,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "hidden_act": "gelu",
    },
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 21},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
    "qwen2-window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 32,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 24},
    "qwen3-even": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 32},
    "phi3": {"model_type": "phi3", "num_key_value_heads": 2, "sliding_window": 40},
    "phi3-longrope": {
        "model_type": "phi3",
        "num_key_value_heads": 2,
        "original_max_position_embeddings": 4,  # shorter than every sequence of the tests, but those of one token
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0],
        },
    },
    "olmo2": {"model_type": "olmo2", "num_key_value_heads": 2, "hidden_size": 72},
    "smollm3": {"model_type": "smollm3", "num_key_value_heads": 2, "no_rope_layer_interval": 2},
    "granite": {
        "model_type": "granite",
        "num_key_value_heads": 2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.4,
        "attention_multiplier": 0.2,
        "logits_scaling": 0.7,
    },
    "gemma2": {
        "model_type": "gemma2",
        "num_key_value_heads": 2,
        "head_dim": 24,
        "query_pre_attn_scalar": 20,
        "sliding_window": 20,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "tie_word_embeddings": False,  # tied, a random model repeats its last token
    },
    "gemma2-even": {
        "model_type": "gemma2",
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 20,
        "sliding_window": 20,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 20,
        "sliding_window": 20,
        "sliding_window_pattern": 3,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "tie_word_embeddings": False,
    },
    "gemma": {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": False},
    "olmo3": {
        "model_type": "olmo3",
        "num_key_value_heads": 2,
        "sliding_window": 20,
        "num_hidden_layers": 4,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    },
    "seed-oss": {"model_type": "seed_oss", "num_key_value_heads": 2, "head_dim": 16, "attention_bias": True},
    "ministral": {
        "model_type": "ministral",
        "head_dim": 16,
        "num_key_value_heads": 2,
        "sliding_window": 20,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "glm": {"model_type": "glm", "num_key_value_heads": 2, "head_dim": 16},
    "glm4": {"model_type": "glm4", "num_key_value_heads": 2, "head_dim": 16},
    "exaone4": {
        "model_type": "exaone4",
        "num_key_value_heads": 2,
        "sliding_window": 20,
        "sliding_window_pattern": 3,
    },
    "ernie4.5": {"model_type": "ernie4_5", "num_key_value_heads": 2, "head_dim": 16, "use_bias": True},
    "olmoe": {"model_type": "olmoe", "num_key_value_heads": 2, "num_experts": 8, "intermediate_size": 32},
    "cohere": {"model_type": "cohere", "num_key_value_heads": 2, "logit_scale": 1.0},
    "cohere2": {
        "model_type": "cohere2",
        "num_key_value_heads": 2,
        "sliding_window": 20,
        "logit_scale": 1.0,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "starcoder2": {"model_type": "starcoder2", "num_key_value_heads": 2, "sliding_window": 20, "hidden_size": 72},
    "stablelm": {"model_type": "stablelm", "num_key_value_heads": 2, "use_qkv_bias": True},
    "stablelm-parallel": {"model_type": "stablelm", "num_key_value_heads": 2, "use_parallel_residual": True},
    "phi": {"model_type": "phi", "num_key_value_heads": 2},
    "gpt-neox": {"model_type": "gpt_neox", "rotary_pct": 0.5},
    "gpt-neox-serial": {"model_type": "gpt_neox", "use_parallel_residual": False},
    "mixtral": {
        "model_type": "mixtral",
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "intermediate_size": 48,
        "sliding_window": 50,
    },
    "gpt-oss": {
        "model_type": "gpt_oss",
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "intermediate_size": 32,
        "sliding_window": 20,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
    },
    "by-transformers-gpt2": {
        "model_type": "gpt2",
        "n_embd": 64,
        "n_head": 4,
        "n_layer": 3,
        "n_positions": 256,
        "tie_word_embeddings": False,
    },
    "by-transformers-bloom": {"model_type": "bloom", "n_head": 4, "n_layer": 3, "pad_token_id": 3},
    "by-transformers-nemotron": {"model_type": "nemotron", "num_key_value_heads": 2, "head_dim": 16},
    "by-transformers-cwm": {
        "model_type": "cwm",
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "num_key_value_heads": 2,
        "sliding_window": 20,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "by-transformers-deepseek": {
        "model_type": "deepseek_v3",
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "n_group": 2,
        "topk_group": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 24,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "first_k_dense_replace": 1,
    },
    "qwen3-moe": {
        "model_type": "qwen3_moe",
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "mlp_only_layers": [1],
        "norm_topk_prob": True,
    },
}
"""Changes to a 3-layer Llama with 4 heads and hidden size 64; `model_type` is another family."""

TEXTS = [
    "the quick brown fox jumps over the lazy dog and runs away from the bear",
    "hello world, hello Pie: a programmable server for language models",
    "numbers 0123456789 and (brackets) [of] {many} <kinds>",
]


def write_checkpoint(folder: Path, shape: str = "gqa-tied", *, dtype: str = "float32", **changes: Any) -> Path:
    """A random model of `SHAPES[shape]`. `gain` is how much each projection amplifies: 1.5 gives sharp attention and
    logits with a spread of 1.5, so that comparing them means something."""
    max_shard_size, gain = changes.pop("max_shard_size", "1GB"), changes.pop("gain", 1.5)
    fields = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **SHAPES[shape],
        **changes,
    }
    config = transformers.AutoConfig.for_model(fields.pop("model_type", "llama"), **fields)
    return _save_random(transformers.AutoModelForCausalLM.from_config(config), folder, gain, dtype, max_shard_size)


def write_noisy(folder: Path, to: Path, noise: float = 0.03) -> Path:
    """The checkpoint in `folder` with a bit of noise on its weights: it says the same more often than not."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    weights = load_file(to / "model.safetensors")
    for name, weight in weights.items():
        weights[name] = weight + noise * weight.std() * torch.randn(weight.shape, generator=generator)
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def randomize(model: transformers.PreTrainedModel, gain: float) -> None:
    """Seeded weights, of which each projection amplifies by `gain`."""
    generator = torch.Generator().manual_seed(0)
    norm_mean = 0.0 if model.config.model_type.startswith("gemma") else 1.0  # Gemma stores the difference from one
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_vector = weight.dim() == 1
            is_norm = is_vector and name.endswith("weight") and ("norm" in name or "ln_" in name)
            spread = 1.0 if name.endswith("sinks") else 0.1 if is_vector else gain / weight.shape[-1] ** 0.5
            weight.normal_(norm_mean if is_norm else 0.0, spread, generator=generator)


def _save_random(
    model: transformers.PreTrainedModel, folder: Path, gain: float, dtype: str, max_shard_size: str
) -> Path:
    randomize(model, gain)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def write_mxfp4(root: Path) -> tuple[Path, Path]:
    """The same random gpt-oss twice: its experts packed as MXFP4, and in the numbers that Transformers unpacks."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    plain = write_checkpoint(root / "plain", "gpt-oss")
    tensors = load_file(plain / "model.safetensors")
    packed, generator = dict(tensors), torch.Generator().manual_seed(1)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        num_experts, columns, rows = packed.pop(name).shape
        blocks = torch.randint(0, 256, (num_experts, rows, columns // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(122, 125, blocks.shape[:-1], generator=generator, dtype=torch.uint8)
        packed[f"{name}_blocks"], packed[f"{name}_scales"] = blocks, scales
        tensors[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    folder = root / "packed"
    folder.mkdir()
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((plain / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "mxfp4"}}))
    return plain, folder


def write_tokenizer(folder: Path, kind: str = "byte-level", **config: Any) -> Path:
    """A small trained tokenizer: `byte-level` as Llama 3 has it, `metaspace` with byte fallback as Llama 2 has it."""
    folder.mkdir(parents=True, exist_ok=True)
    build = {"byte-level": byte_level_tokenizer, "metaspace": metaspace_tokenizer}[kind]
    build().save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return folder


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(bpe_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<unk>", "<s>", "</s>", "<|user|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def metaspace_tokenizer() -> tokenizers.Tokenizer:
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = sorted({char for text in TEXTS for char in text.replace(" ", "▁")})
    vocab = {
        piece: index for index, piece in enumerate(["<unk>", "<s>", "</s>", *pieces, *letters, "▁t", "▁th", "▁the"])
    }
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    tokenizer = tokenizers.Tokenizer(bpe_models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer
