"""The metadata of a GGUF file as the `config.json` that the families read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pie_engine.errors import Unsupported
from pie_engine.model.gguf_file.header import Header

Raw = dict[str, Any]
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}
_WITH_EXPERTS = ("llama", "qwen3moe", "olmoe")
_STARCODER2_WINDOW = 4096
_ROPE_TYPES = {"linear": "linear", "yarn": "yarn"}


def hf_config(header: Header) -> Raw:
    """Raises `Unsupported` for an architecture or a switch that Pie does not have, `ModelError` for what is missing."""
    known = ARCHITECTURES.get(header.architecture)
    if known is None:
        raise Unsupported(
            f"{header.path}: GGUF architecture `{header.architecture}` is not supported",
            hint=f"supported: {', '.join(ARCHITECTURES)}; or use its safetensors",
        )
    if header.get("expert_count") and header.architecture not in _WITH_EXPERTS:
        raise Unsupported(
            f"{header.path}: GGUF files of `{header.architecture}` with experts are not supported",
            hint=f"with experts: {', '.join(_WITH_EXPERTS)}; or use its safetensors",
        )
    name, particular = known
    return _common(header) | {"architectures": [name]} | particular(header)


def _common(header: Header) -> Raw:
    heads = header.need("attention.head_count")
    raw: Raw = {
        "hidden_size": header.need("embedding_length"),
        "intermediate_size": header.need("feed_forward_length"),
        "num_hidden_layers": header.need("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.get("attention.head_count_kv", heads),
        "head_dim": _head_dim(header),
        "max_position_embeddings": header.need("context_length"),
        "vocab_size": header.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in header.tensors else None,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "dtype": _dtype(header),
        "bos_token_id": header.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": eos_ids(header),
    }
    if (eps := header.get("attention.layer_norm_epsilon")) is not None:
        raw |= {"layer_norm_eps": eps, "norm_epsilon": eps}
    else:
        raw["rms_norm_eps"] = header.need("attention.layer_norm_rms_epsilon")
    if (theta := header.get("rope.freq_base")) is not None:
        raw["rope_theta"] = theta
    if scaling := _rope_scaling(header):
        raw["rope_scaling"] = scaling
    return raw


def _head_dim(header: Header) -> int:
    return int(
        header.get("attention.key_length", header.need("embedding_length") // header.need("attention.head_count"))
    )


def _rotated_part(header: Header) -> float:
    """Of each head."""
    rotated = header.get("rope.dimension_count")
    return rotated / _head_dim(header) if rotated else 1.0


def eos_ids(header: Header) -> list[int]:
    """The end of a text, and that of a turn in a chat."""
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    found = (header.metadata.get(f"tokenizer.ggml.{name}") for name in names)
    return list(dict.fromkeys(int(token) for token in found if token is not None))


def _dtype(header: Header) -> str:
    """Quantized files were bfloat16 or float16 once; what they hold now has no more precision than bfloat16."""
    matrix = header.tensors.get("blk.0.ffn_down.weight") or header.tensors.get("blk.0.ffn_down_exps.weight")
    return {"F32": "float32", "F16": "float16"}.get(matrix.dtype if matrix else "", "bfloat16")


def _rope_scaling(header: Header) -> Raw | None:
    if header.rope_factors:
        # Llama 3's scaling as the divisors that it comes to; the same whatever the length, and nothing else grows.
        factors = {"long_factor": header.rope_factors, "short_factor": header.rope_factors}
        return {"rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, **factors}
    kind = header.get("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in _ROPE_TYPES:
        raise Unsupported(f"{header.path}: rope scaling `{kind}` is not supported", hint="supported: linear, yarn")
    scaling: Raw = {"rope_type": _ROPE_TYPES[kind], "factor": header.need("rope.scaling.factor")}
    if (original := header.get("rope.scaling.original_context_length")) is not None:
        scaling["original_max_position_embeddings"] = original
    return scaling


def _has(header: Header, name: str) -> bool:
    return f"blk.0.{name}" in header.tensors


def _llama(header: Header) -> Raw:
    return {
        "attention_bias": _has(header, "attn_q.bias"),
        "mlp_bias": _has(header, "ffn_down.bias"),
    }


def _qwen3(header: Header) -> Raw:
    return {"attention_bias": _has(header, "attn_q.bias")}


def _phi3(header: Header) -> Raw:
    if any(name.startswith("rope_factors_") for name in header.tensors):
        raise Unsupported(f"{header.path}: LongRoPE from GGUF files is not supported", hint="use its safetensors")
    return {
        "sliding_window": header.get("attention.sliding_window"),
        "partial_rotary_factor": _rotated_part(header),
    }


def _granite(header: Header) -> Raw:
    return {
        **_llama(header),
        "attention_multiplier": header.need("attention.scale"),
        "embedding_multiplier": header.need("embedding_scale"),
        "residual_multiplier": header.need("residual_scale"),
        "logits_scaling": header.need("logit_scale"),
    }


def _gemma(header: Header) -> Raw:
    """Files do not carry the scale of the scores; llama.cpp knows the one size in which it is not the usual one."""
    hidden, heads = header.need("embedding_length"), header.need("attention.head_count")
    is_27b = header.need("block_count") == _GEMMA_27B_LAYERS[header.architecture]
    return {
        "query_pre_attn_scalar": hidden // heads if is_27b else header.need("attention.key_length"),
        "sliding_window": header.need("attention.sliding_window"),
        "attn_logit_softcapping": header.get("attn_logit_softcapping"),
        "final_logit_softcapping": header.get("final_logit_softcapping"),
    }


def _llama_or_mixtral(header: Header) -> Raw:
    """Files call both `llama`."""
    if header.get("expert_count"):
        return {"architectures": ["MixtralForCausalLM"], **_experts(header)}
    return _llama(header)


def _qwen3_moe(header: Header) -> Raw:
    """Every layer has experts, whose shares sum to one: llama.cpp knows no others."""
    return {
        **_qwen3(header),
        **_experts(header),
        "moe_intermediate_size": header.need("expert_feed_forward_length"),
        "norm_topk_prob": True,
    }


def _olmoe(header: Header) -> Raw:
    return {**_experts(header), "norm_topk_prob": False, "clip_qkv": header.get("attention.clamp_kqv")}


def _experts(header: Header) -> Raw:
    count = header.need("expert_count")
    return {
        "num_experts": count,
        "num_local_experts": count,
        "num_experts_per_tok": header.need("expert_used_count"),
    }


def _olmo2_or_3(header: Header) -> Raw:
    """Files call both `olmo2`; only the third has windows."""
    window = header.get("attention.sliding_window")
    if window is None:
        return {}
    raw: Raw = {"architectures": ["Olmo3ForCausalLM"], "sliding_window": window}
    pattern = header.get("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        raw["layer_types"] = ["sliding_attention" if is_windowed else "full_attention" for is_windowed in pattern]
    return raw


def _stablelm(header: Header) -> Raw:
    return {
        "partial_rotary_factor": _rotated_part(header),
        "use_parallel_residual": "blk.0.ffn_norm.weight" not in header.tensors,
        "use_qkv_bias": _has(header, "attn_q.bias"),
    }


def _starcoder2(header: Header) -> Raw:
    """Files do not carry the window, which is the same in all sizes."""
    return {
        "use_bias": _has(header, "ffn_down.bias"),
        "sliding_window": header.get("attention.sliding_window", _STARCODER2_WINDOW),
    }


def _phi2(header: Header) -> Raw:
    return {"partial_rotary_factor": _rotated_part(header)}


def _cohere(header: Header) -> Raw:
    return {"logit_scale": header.need("logit_scale"), "sliding_window": header.get("attention.sliding_window")}


def _ernie(header: Header) -> Raw:
    return {"use_bias": _has(header, "attn_q.bias")}


def _nothing(header: Header) -> Raw:
    return {}


ARCHITECTURES: dict[str, tuple[str, Callable[[Header], Raw]]] = {
    "llama": ("LlamaForCausalLM", _llama_or_mixtral),
    "qwen2": ("Qwen2ForCausalLM", _nothing),
    "qwen3": ("Qwen3ForCausalLM", _qwen3),
    "qwen3moe": ("Qwen3MoeForCausalLM", _qwen3_moe),
    "gemma": ("GemmaForCausalLM", _nothing),
    "gemma2": ("Gemma2ForCausalLM", _gemma),
    "gemma3": ("Gemma3ForCausalLM", _gemma),
    "phi3": ("Phi3ForCausalLM", _phi3),
    "phi2": ("PhiForCausalLM", _phi2),
    "olmo2": ("Olmo2ForCausalLM", _olmo2_or_3),
    "olmoe": ("OlmoeForCausalLM", _olmoe),
    "smollm3": ("SmolLM3ForCausalLM", _llama),
    "granite": ("GraniteForCausalLM", _granite),
    "command-r": ("CohereForCausalLM", _cohere),
    "cohere2": ("Cohere2ForCausalLM", _cohere),
    "stablelm": ("StableLmForCausalLM", _stablelm),
    "starcoder2": ("Starcoder2ForCausalLM", _starcoder2),
    "ernie4_5": ("Ernie4_5ForCausalLM", _ernie),
}
"""By `general.architecture`: the class of Transformers, and what its configuration has besides the usual."""
