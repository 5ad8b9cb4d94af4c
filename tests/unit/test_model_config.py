"""What each family reads out of `config.json`: rotary scaling in every spelling, windows, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pie_engine.errors import InvalidConfig, ModelError, PieError, Unsupported
from pie_engine.model.config import parse_config
from pie_engine.model.description import ModelConfig, RopeConfig

RAW: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 320,
    "max_position_embeddings": 32768,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def parse(architecture: str = "LlamaForCausalLM", limit: int = 0, **fields: Any) -> ModelConfig:
    raw = {**RAW, "architectures": [architecture], **fields}
    return parse_config(raw, eos_ids=(), max_context_tokens=limit)


def rope_of(**fields: Any) -> RopeConfig:
    rope = parse(**fields).layers[0].rope
    assert rope is not None
    return rope


def windows_of(architecture: str, **fields: Any) -> list[int | None]:
    return [layer.window for layer in parse(architecture, **fields).layers]


def test_rope_scaling_in_every_spelling() -> None:
    expected = RopeConfig("llama3", 5e5, 8.0, 1.0, 4.0, 8192)
    assert rope_of(rope_theta=5e5, rope_scaling={"rope_type": "llama3", **LLAMA3}) == expected
    assert rope_of(rope_theta=5e5, rope_scaling={"type": "llama3", **LLAMA3}) == expected
    assert rope_of(rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}) == expected
    assert rope_of(rope_scaling={"type": "linear", "factor": 2}) == RopeConfig("linear", 1e4, 2.0)
    assert rope_of(rope_scaling=None, rope_theta=1e6) == RopeConfig(theta=1e6)
    assert rope_of() == RopeConfig(theta=1e4)


def test_yarn() -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
    rope = rope_of(rope_scaling=scaling)
    assert (rope.kind, rope.factor, rope.original_max_position) == ("yarn", 4.0, 8192)
    assert rope.attention_factor == pytest.approx(0.1 * math.log(4) + 1)
    assert rope_of(rope_scaling={**scaling, "attention_factor": 1.5}).attention_factor == 1.5
    deepseek = rope_of(rope_scaling={**scaling, "mscale": 1.0, "mscale_all_dim": 1.0})
    assert deepseek.attention_factor == 1.0


def test_yarn_lengthens_a_context_that_the_configuration_gives_unscaled() -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert parse(rope_scaling=scaling).max_context_tokens == 131072


def test_dynamic_scaling_follows_the_context_that_is_asked_for() -> None:
    scaling = {"type": "dynamic", "factor": 2.0}
    own, longer = parse(rope_scaling=scaling), parse(rope_scaling=scaling, limit=65536)
    assert (own.max_context_tokens, longer.max_context_tokens) == (32768, 65536)
    assert own.layers[0].rope == RopeConfig(theta=1e4)
    assert longer.layers[0].rope == RopeConfig(theta=1e4 * 3 ** (16 / 14))


def test_a_context_limit() -> None:
    assert parse(limit=4096).max_context_tokens == 4096
    with pytest.raises(InvalidConfig, match="max_context_tokens is 40000; the model takes 32768"):
        parse(limit=40000)


def test_windows_of_all_layers() -> None:
    assert windows_of("MistralForCausalLM", sliding_window=4096) == [4096] * 4
    assert windows_of("MistralForCausalLM", sliding_window=None) == [None] * 4
    assert parse("MistralForCausalLM", sliding_window=4096).max_context_tokens == 32768


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_windows_of_the_upper_layers(architecture: str) -> None:
    window = {"sliding_window": 4096, "max_window_layers": 3}
    assert windows_of(architecture, **window) == [None] * 4, "a window that is not switched on"
    assert windows_of(architecture, use_sliding_window=True, **window) == [None, None, None, 4096]
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    assert windows_of(architecture, use_sliding_window=True, layer_types=kinds, **window) == [4096, None, 4096, None]


def test_biases() -> None:
    def biases(config: ModelConfig) -> tuple[bool, bool, bool]:
        return config.qkv_bias, config.attention_out_bias, config.mlp_bias

    assert biases(parse(attention_bias=True)) == (True, True, False)
    assert biases(parse("Qwen2ForCausalLM")) == (True, False, False)
    assert biases(parse("Qwen3ForCausalLM", attention_bias=True)) == (True, True, False)
    assert biases(parse("MistralForCausalLM", attention_bias=True)) == (False, False, False)


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"rope_scaling": {"type": "xpos", "factor": 2}}, Unsupported, "rope type 'xpos'"),
        ({"rope_scaling": {"type": "linear"}}, ModelError, "has no factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, ModelError, "factor must be positive"),
        ({"rope_scaling": {"type": "llama3", **LLAMA3, "high_freq_factor": 1}}, ModelError, "high_freq_factor"),
        ({"rope_scaling": "llama3"}, ModelError, "rope_scaling must be an object"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, Unsupported, "part of each head"),
        ({"sliding_window": "x", "architectures": ["MistralForCausalLM"]}, ModelError, "sliding_window must be"),
        ({"layer_types": ["full_attention"], "architectures": ["Qwen2ForCausalLM"]}, ModelError, "each of 4 layers"),
        (
            {"layer_types": ["chunked_attention"] * 4, "architectures": ["Qwen2ForCausalLM"]},
            Unsupported,
            "layers of type 'chunked_attention'",
        ),
    ],
)
def test_what_is_refused_names_the_field(fields: dict[str, Any], error: type[PieError], says: str) -> None:
    with pytest.raises(error) as refused:
        parse_config({**RAW, **fields}, eos_ids=(), where="config.json")
    assert says in refused.value.message
    assert "config.json" in refused.value.message
