"""What `config.json` says about a model, checked and in one spelling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pie_engine.errors import ModelError, Unsupported

SUPPORTED_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
SUPPORTED_ROPE_TYPES = ("default", "linear", "llama3")
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number in each dtype that weights may have."""


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding; the last four fields only matter where `kind` uses them."""

    kind: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and switches of a decoder-only model with rotary positions, RMS norms and a gated MLP."""

    architecture: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context_tokens: int
    rms_norm_eps: float
    rope: RopeConfig
    tie_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    dtype: str
    """The checkpoint's own dtype."""
    eos_ids: tuple[int, ...]
    bos_id: int | None

    @property
    def kv_bytes_per_token(self) -> int:
        """Over all layers, in fp32, which is how the CPU engine keeps it."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * 4


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; raises `ModelError` that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}", hint="download the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds {type(value).__name__}, not a JSON object", hint="download the model again")
    return value


def read_config(folder: Path) -> ModelConfig:
    """`config.json` and `generation_config.json` of a model folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no config.json", hint=_hint_for(folder))
    return parse_config(read_json(path), eos_ids=read_eos_ids(folder), where=str(path))


def read_eos_ids(folder: Path) -> tuple[int, ...]:
    """The end-of-sequence ids: `generation_config.json` where it has them, `config.json` otherwise."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file() and (ids := _token_ids(read_json(path).get("eos_token_id"), str(path))):
            return ids
    return ()


def parse_config(raw: Mapping[str, Any], *, eos_ids: tuple[int, ...], where: str = "config.json") -> ModelConfig:
    """The checked configuration; raises `Unsupported` or `ModelError` naming the field."""
    architecture = _architecture(raw, where)
    _refuse_unsupported(raw, where)
    get = _Fields(raw, where)
    hidden_size, num_heads = get.size("hidden_size"), get.size("num_attention_heads")
    config = ModelConfig(
        architecture=architecture,
        hidden_size=hidden_size,
        intermediate_size=get.size("intermediate_size"),
        num_layers=get.size("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=get.size("num_key_value_heads", num_heads),
        head_dim=get.size("head_dim", max(hidden_size // num_heads, 1)),
        vocab_size=get.size("vocab_size"),
        max_context_tokens=_max_context_tokens(get, raw),
        rms_norm_eps=get.number("rms_norm_eps", 1e-6),
        rope=_rope(raw, where),
        tie_embeddings=get.flag("tie_word_embeddings"),
        attention_bias=get.flag("attention_bias"),
        mlp_bias=get.flag("mlp_bias"),
        dtype=_dtype(raw, where),
        eos_ids=eos_ids,
        bos_id=next(iter(_token_ids(raw.get("bos_token_id"), where)), None),
    )
    if config.num_heads % config.num_kv_heads:
        raise ModelError(
            f"{where}: {config.num_heads} attention heads cannot share {config.num_kv_heads} key-value heads evenly"
        )
    if config.head_dim % 2:
        raise ModelError(f"{where}: head_dim {config.head_dim} is odd; rotary positions need pairs")
    return config


@dataclass(frozen=True, slots=True)
class _Fields:
    """Typed access to the raw configuration; a null is the same as an absent field."""

    raw: Mapping[str, Any]
    where: str

    def size(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(f"{self.where}: {name} must be a positive integer, not {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{self.where}: {name} must be a number, not {value!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._value(name, False)
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: {name} must be true or false, not {value!r}")
        return value

    def _value(self, name: str, default: Any) -> Any:
        value = self.raw.get(name)
        if value is None:
            value = default
        if value is None:
            raise ModelError(f"{self.where} has no {name}", hint="is this the folder of a text-generation model?")
        return value


def _architecture(raw: Mapping[str, Any], where: str) -> str:
    names = raw.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ModelError(f"{where} names no architecture", hint="`architectures` should hold one model class name")
    if names[0] not in SUPPORTED_ARCHITECTURES:
        raise Unsupported(
            f"{where}: architecture {names[0]} is not supported",
            hint=f"supported: {', '.join(SUPPORTED_ARCHITECTURES)}",
        )
    return names[0]


def _refuse_unsupported(raw: Mapping[str, Any], where: str) -> None:
    quantization = raw.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, Mapping) else quantization
        raise Unsupported(
            f"{where}: weights quantized with {method!r} are not supported",
            hint="use the checkpoint in float32, bfloat16 or float16",
        )
    activation = raw.get("hidden_act") or "silu"
    if activation not in ("silu", "swish"):
        raise Unsupported(f"{where}: activation {activation!r} is not supported", hint="supported: silu")
    for source in (raw, raw.get("rope_parameters") or {}):
        if isinstance(source, Mapping) and source.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise Unsupported(f"{where}: rotary positions on a part of each head are not supported")


def _max_context_tokens(get: _Fields, raw: Mapping[str, Any]) -> int:
    """Up to the sliding window, where there is one: within it, windowed attention is full attention."""
    context = get.size("max_position_embeddings", 2048)
    window_is_on = raw.get("sliding_window") is not None and raw.get("use_sliding_window", True)
    return min(context, get.size("sliding_window")) if window_is_on else context


def _rope(raw: Mapping[str, Any], where: str) -> RopeConfig:
    """`rope_parameters` (Transformers 5), or `rope_theta` beside `rope_scaling` with `rope_type` or `type`."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise ModelError(f"{where}: rope_scaling must be an object, not {scaling!r}")
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in SUPPORTED_ROPE_TYPES:
        raise Unsupported(
            f"{where}: rope type {kind!r} is not supported", hint=f"supported: {', '.join(SUPPORTED_ROPE_TYPES)}"
        )
    get = _Fields(scaling, f"{where} (rope)")
    theta = get.number("rope_theta", _Fields(raw, where).number("rope_theta", 10000.0))
    if kind == "default":
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig("linear", theta, _positive(get, "factor"))
    rope = RopeConfig(
        kind="llama3",
        theta=theta,
        factor=_positive(get, "factor"),
        low_freq_factor=_positive(get, "low_freq_factor"),
        high_freq_factor=_positive(get, "high_freq_factor"),
        original_max_position=get.size("original_max_position_embeddings"),
    )
    if rope.high_freq_factor <= rope.low_freq_factor:
        raise ModelError(f"{get.where}: high_freq_factor must be greater than low_freq_factor")
    return rope


def _positive(get: _Fields, name: str) -> float:
    value = get.number(name)
    if value <= 0:
        raise ModelError(f"{get.where}: {name} must be positive, not {value}")
    return value


def _dtype(raw: Mapping[str, Any], where: str) -> str:
    name = str(raw.get("dtype") or raw.get("torch_dtype") or "float32").removeprefix("torch.")
    if name not in DTYPES:
        raise Unsupported(f"{where}: dtype {name!r} is not supported", hint=f"supported: {', '.join(DTYPES)}")
    return name


def _token_ids(value: Any, where: str) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise ModelError(f"{where}: token id {token!r} is not a non-negative integer")
    return tuple(ids)


def _hint_for(folder: Path) -> str:
    if any(folder.glob("*.gguf")):
        return "GGUF files are not supported; use the model's Hugging Face folder with safetensors"
    return "give the folder of a Hugging Face checkpoint, or a model id that is in the local cache"
