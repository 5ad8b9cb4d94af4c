"""What each family reads out of `config.json`: rotary scaling in every spelling, windows, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pie_engine.errors import InvalidConfig, ModelError, PieError, Unsupported
from pie_engine.model.config import parse_config
from pie_engine.model.description import ModelConfig, RopeConfig
from pie_engine.model.families import FAMILIES
from pie_engine.model.tensors import expected_tensors

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


def test_windows_of_qwen3_with_experts_are_those_of_all_layers() -> None:
    window = {"sliding_window": 64, "max_window_layers": 3}
    assert windows_of("Qwen3MoeForCausalLM", **window) == [None] * 4
    assert windows_of("Qwen3MoeForCausalLM", use_sliding_window=True, **window) == [64] * 4


def test_windows_of_gemma() -> None:
    assert windows_of("Gemma2ForCausalLM", sliding_window=64) == [64, None, 64, None]
    assert windows_of("Gemma3ForCausalLM", sliding_window=64, sliding_window_pattern=2) == [64, None, 64, None]
    assert windows_of("Gemma3ForCausalLM", num_hidden_layers=6)[4:] == [4096, None]


def test_layers_with_a_window_have_rotary_positions_of_their_own() -> None:
    old = {"rope_theta": 2e6, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    new = {"full_attention": {"rope_theta": 2e6, **old["rope_scaling"]}, "sliding_attention": {"rope_theta": 5e3}}
    for fields in (old, {"rope_parameters": new}):
        layers = parse("Gemma3ForCausalLM", sliding_window_pattern=2, **fields).layers
        assert [layer.rope for layer in layers[:2]] == [RopeConfig(theta=5e3), RopeConfig("linear", 2e6, 8.0)]
    by_default = parse("Gemma3ForCausalLM", sliding_window_pattern=2).layers
    assert [layer.rope for layer in by_default[:2]] == [RopeConfig(theta=1e4), RopeConfig(theta=1e6)]


def test_fields_that_a_gemma_file_leaves_out() -> None:
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    raw = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "torch_dtype": "bfloat16"}
    config = parse_config(raw, eos_ids=(1,))
    assert (config.num_heads, config.num_kv_heads, config.head_dim, config.vocab_size) == (8, 4, 256, 262208)
    assert (config.tie_embeddings, config.activation, config.dtype) == (True, "gelu_tanh", "bfloat16")
    assert config.names.layer(3) == "language_model.model.layers.3."
    assert config.other_names[0].layer(3) == "model.language_model.layers.3."
    with pytest.raises(ModelError, match="text_config must be an object"):
        parse_config({**raw, "text_config": None}, eos_ids=())


def test_a_soft_cap_that_is_switched_off() -> None:
    assert parse("Gemma2ForCausalLM").score_softcap == 50.0
    assert parse("Gemma2ForCausalLM", attn_logit_softcapping=None).score_softcap is None


def test_layers_without_positions() -> None:
    def rotates(**fields: Any) -> list[bool]:
        return [layer.rope is not None for layer in parse("SmolLM3ForCausalLM", **fields).layers]

    assert rotates() == [True, True, True, False]
    assert rotates(no_rope_layers=[1, 0, 1, 0]) == [True, False, True, False]
    window = {"use_sliding_window": True, "sliding_window": 8}
    assert windows_of("SmolLM3ForCausalLM", **window) == [None, None, None, 8]


PHI3 = {
    "architectures": ["Phi3ForCausalLM"],
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "partial_rotary_factor": 0.75,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6},
}


@pytest.mark.parametrize(("limit", "factors"), [(0, (2.0,) * 6), (4097, (2.0,) * 6), (4096, (1.0,) * 6)])
def test_longrope_follows_the_context_that_is_asked_for(limit: int, factors: tuple[float, ...]) -> None:
    config = parse_config({**RAW, **PHI3}, eos_ids=(), max_context_tokens=limit)
    rope = config.layers[0].rope
    assert rope is not None
    assert (rope.kind, rope.factors, config.max_context_tokens) == ("longrope", factors, limit or 131072)
    assert rope.attention_factor == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))
    assert rope.rotated_dim(config.head_dim) == 12


def test_where_experts_are() -> None:
    def has_experts(**fields: Any) -> list[bool]:
        return [layer.has_experts for layer in parse("Qwen3MoeForCausalLM", **fields).layers]

    assert has_experts(mlp_only_layers=[0]) == [False, True, True, True]
    assert has_experts(decoder_sparse_step=2) == [False, True, False, True]
    assert all(layer.has_experts for layer in parse("MixtralForCausalLM").layers)


GPT_OSS = {"num_key_value_heads": 2, "num_local_experts": 4, "quantization_config": {"quant_method": "mxfp4"}}


def test_what_gpt_oss_has_of_its_own() -> None:
    config = parse("GptOssForCausalLM", sliding_window=64, **GPT_OSS)
    assert [layer.window for layer in config.layers] == [64, None, 64, None]
    assert config.experts is not None
    assert config.experts.is_packed
    shapes = expected_tensors(config)
    assert shapes["model.layers.3.mlp.experts.gate_up_proj_blocks"] == (4, 320, 2, 16)
    assert shapes["model.layers.3.self_attn.sinks"] == (4,)
    assert "model.layers.3.mlp.experts.gate_up_proj" in expected_tensors(
        parse("GptOssForCausalLM", **{**GPT_OSS, "quantization_config": None})
    )


@pytest.mark.parametrize(("architecture", "method"), [("LlamaForCausalLM", "mxfp4"), ("GptOssForCausalLM", "gptq")])
def test_quantization_that_a_family_does_not_read(architecture: str, method: str) -> None:
    with pytest.raises(Unsupported, match=f"quantized with '{method}'"):
        parse(architecture, quantization_config={"quant_method": method})


def test_every_family_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in FAMILIES if f"`{name}`" not in page] == []


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
        ({**PHI3, "partial_rotary_factor": 0.5}, ModelError, "long_factor has 6 numbers, 4 are needed"),
        ({**PHI3, "partial_rotary_factor": 1.5}, ModelError, "partial_rotary_factor must be at most 1"),
        ({**PHI3, "partial_rotary_factor": 0.7}, ModelError, "the rotated part of a head, 11, is odd"),
        ({"no_rope_layers": [1], "architectures": ["SmolLM3ForCausalLM"]}, ModelError, "no_rope_layers must have"),
        ({"mlp_only_layers": 3, "architectures": ["Qwen3MoeForCausalLM"]}, ModelError, "mlp_only_layers must be"),
        (
            {"use_bidirectional_attention": True, "architectures": ["Gemma2ForCausalLM"]},
            Unsupported,
            "use_bidirectional_attention is on",
        ),
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
