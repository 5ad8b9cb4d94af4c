"""What is read of an adapter, and what is refused, by name."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pie_engine.errors import ModelError, NotFound, PieError, Unsupported
from pie_engine.model.config import parse_config
from pie_engine.model.description import ModelConfig
from pie_engine.model.lora.files import AdapterFiles
from pie_engine.model.lora.layout import Part, layout_of, num_bytes
from pie_engine.model.lora.settings import LoraSettings
from tests.adapter_files import NAME, SETTINGS, tensors_of, write_files, write_small

HIDDEN, HEADS, KV_HEADS, HEAD, INNER = 32, 4, 2, 8, 48


def config_of(architecture: str = "LlamaForCausalLM", **fields: Any) -> ModelConfig:
    raw = {
        "architectures": [architecture],
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": 2,
        "vocab_size": 100,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "torch_dtype": "float32",
        **fields,
    }
    return parse_config(raw, eos_ids=())


def settings_of(**fields: Any) -> LoraSettings:
    return LoraSettings.of({**SETTINGS, **fields}, "adapter_config.json")


# Settings.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "adapters of type IA3 are not supported"),
        ({"use_dora": True}, "it is a DoRA adapter"),
        ({"modules_to_save": ["lm_head", "embed_tokens"]}, r"whole modules \(lm_head, embed_tokens\)"),
        ({"bias": "lora_only"}, "`bias` is 'lora_only'"),
        ({"lora_bias": True}, "`lora_bias`"),
        ({"fan_in_fan_out": True}, "`fan_in_fan_out`"),
        ({"trainable_token_indices": [1, 2]}, "`trainable_token_indices`"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "mlp.experts.gate_up_proj"),
        ({"layer_replication": [[0, 2]]}, "`layer_replication`"),
        ({"alora_invocation_tokens": [5]}, "`alora_invocation_tokens`"),
        ({"use_qalora": True}, "the setting `use_qalora`"),
        ({"something_new": {"x": 1}}, "the setting `something_new`"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(fields, message):
    with pytest.raises(Unsupported, match=message) as caught:
        settings_of(**fields)
    assert "merge_and_unload" in caught.value.hint


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "corda", "loftq"])
def test_an_initialisation_that_changes_the_model_is_refused(start):
    with pytest.raises(Unsupported, match=start) as caught:
        settings_of(init_lora_weights=start)
    assert "path_initial_model_for_weight_conversion" in caught.value.hint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 0}, "`r` is 0"),
        ({"r": "8"}, "`r` is '8'"),
        ({"lora_alpha": math.nan}, "`lora_alpha` is nan"),
        ({"rank_pattern": {"q_proj": -1}}, "`rank_pattern.q_proj` is -1"),
        ({"rank_pattern": [1]}, r"`rank_pattern` is \[1\]"),
        ({"alpha_pattern": {"(": 1}}, "no regular expression"),
        ({"target_modules": "("}, "no regular expression"),
        ({"target_modules": []}, "no `target_modules`"),
        ({"target_modules": 3}, "`target_modules` is 3"),
        ({"layers_to_transform": ["a"]}, "`layers_to_transform`"),
    ],
)
def test_a_wrong_setting_is_named(fields, message):
    with pytest.raises(ModelError, match=message):
        settings_of(**fields)


def test_rank_and_scale_follow_the_patterns():
    settings = settings_of(
        r=4, lora_alpha=8, rank_pattern={r"layers\.1\..*q_proj": 16, "v_proj": 2}, alpha_pattern={"v_proj": 3}
    )
    assert settings.rank_of("model.layers.0.self_attn.q_proj") == 4
    assert settings.rank_of("model.layers.1.self_attn.q_proj") == 16
    assert settings.scale_of("model.layers.0.self_attn.q_proj") == 2
    assert settings.scale_of("model.layers.1.self_attn.q_proj") == 0.5
    assert settings.scale_of("model.layers.1.self_attn.v_proj") == 1.5
    assert replace(settings, use_rslora=True).scale_of("model.layers.0.self_attn.q_proj") == 4


@pytest.mark.parametrize(
    ("fields", "targeted"),
    [
        ({"target_modules": ["q_proj"]}, {0, 1}),
        ({"target_modules": ["proj"]}, set()),
        ({"target_modules": ["model.layers.1.self_attn.q_proj"]}, {1}),
        ({"target_modules": r".*\.1\..*q_proj"}, {1}),
        ({"target_modules": "all-linear"}, {0, 1}),
        ({"target_modules": ["q_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]}, {1}),
        ({"target_modules": ["q_proj"], "exclude_modules": r".*\.1\..*"}, {0}),
        ({"target_modules": ["q_proj"], "layers_to_transform": 1}, {1}),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"}, {0}),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": ["blocks"]}, set()),
    ],
)
def test_targets_are_names_or_an_expression(fields, targeted):
    settings = settings_of(**fields)
    assert {layer for layer in (0, 1) if settings.targets(f"model.layers.{layer}.self_attn.q_proj", layer)} == targeted


# Files.


def test_a_folder_is_read_without_a_model(tmp_path):
    files = AdapterFiles.open(write_small(tmp_path))
    assert files.settings.rank == 2
    assert files.num_bytes == 4 * 2 * (8 * 2 + 8 * 2)


def test_the_id_is_of_the_content(tmp_path):
    one, same = (AdapterFiles.open(write_small(tmp_path / name)).adapter_id for name in ("one", "same"))
    others = [
        AdapterFiles.open(write_small(tmp_path / "values", value=2.0)).adapter_id,
        AdapterFiles.open(write_small(tmp_path / "alpha", lora_alpha=5)).adapter_id,
    ]
    assert one == same
    assert len({one, *others}) == 3


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(NotFound, match="nowhere does not exist"):
        AdapterFiles.open(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        AdapterFiles.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        AdapterFiles.open(tmp_path)
    assert caught.value.hint == "it holds a model: load it as one"
    folder = write_small(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(Unsupported, match="can run code"):
        AdapterFiles.open(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        AdapterFiles.open(folder)


def test_a_damaged_file_is_named(tmp_path):
    folder = write_small(tmp_path)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelError, match="truncated"):
        AdapterFiles.open(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config\.json is not readable JSON"):
        AdapterFiles.open(folder)


# Layout.


def complaint_about(folder: Path, config: ModelConfig | None = None) -> PieError:
    with pytest.raises(PieError) as caught:
        layout_of(AdapterFiles.open(folder), config or config_of())
    return caught.value


def test_parts_lie_where_the_projections_are_run_as_one(tmp_path):
    name = "base_model.model.model.layers.1.{}.lora_{}.weight"
    tensors = {
        name.format("self_attn.v_proj", "A"): (2, HIDDEN),
        name.format("self_attn.v_proj", "B"): (KV_HEADS * HEAD, 2),
        name.format("mlp.up_proj", "A"): (2, HIDDEN),
        name.format("mlp.up_proj", "B"): (INNER, 2),
    }
    settings = {"target_modules": ["v_proj", "up_proj"], "layers_to_transform": [1]}
    layout = layout_of(AdapterFiles.open(write_files(tmp_path, tensors, settings)), config_of())
    assert set(layout) == {(1, "qkv"), (1, "gate_up")}
    [value], [up] = layout[1, "qkv"], layout[1, "gate_up"]
    names = [name.format("self_attn.v_proj", which) for which in "AB"]
    assert value == Part((HEADS + KV_HEADS) * HEAD, KV_HEADS * HEAD, HIDDEN, 2, 2.0, *names)
    assert (up.first_output, up.num_outputs) == (INNER, INNER)
    assert num_bytes(layout, "bfloat16") == 2 * 2 * (HIDDEN + KV_HEADS * HEAD + HIDDEN + INNER)
    outputs = 2 * (KV_HEADS * HEAD + INNER)
    assert num_bytes(layout, "bfloat16", rank_multiple=8) == 2 * (8 * (HIDDEN + HIDDEN) + outputs)


def test_a_fused_projection_is_one_part(tmp_path):
    size = (HEADS + 2 * KV_HEADS) * HEAD
    name = "base_model.model.model.layers.0.self_attn.qkv_proj.lora_{}.weight"
    tensors = {name.format("A"): (2, HIDDEN), name.format("B"): (size, 2)}
    settings = {"target_modules": ["qkv_proj"], "layers_to_transform": [0]}
    layout = layout_of(AdapterFiles.open(write_files(tmp_path, tensors, settings)), config_of("Phi3ForCausalLM"))
    [part] = layout[0, "qkv"]
    assert (part.first_output, part.num_outputs) == (0, size)


def test_a_missing_tensor_is_named(tmp_path):
    whole = tensors_of(HIDDEN, HEADS * HEAD)
    for which in "AB":
        name = NAME.format(layer=1, which=which)
        folder = write_files(tmp_path / which, {key: shape for key, shape in whole.items() if key != name})
        assert complaint_about(folder).message.endswith(f"lacks tensor {name}")
    folder = write_files(tmp_path / "layer", tensors_of(HIDDEN, HEADS * HEAD, num_layers=1))
    assert complaint_about(folder).message.endswith(f"lacks tensor {NAME.format(layer=1, which='A')}")


def test_a_tensor_of_another_model_is_named(tmp_path):
    other = complaint_about(write_files(tmp_path / "hidden", tensors_of(16, HEADS * HEAD)))
    assert NAME.format(layer=0, which="A") in other.message
    assert "[2, 16]" in other.message
    assert f"[2, {HIDDEN}]" in other.message
    deeper = complaint_about(write_files(tmp_path / "deep", tensors_of(HIDDEN, HEADS * HEAD, num_layers=3)))
    assert "belongs to layer 2" in deeper.message
    ranks = write_files(tmp_path / "rank", tensors_of(HIDDEN, HEADS * HEAD, rank=3))
    assert f"[3, {HIDDEN}]" in complaint_about(ranks).message


@pytest.mark.parametrize(
    "tensor",
    [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight",
        "base_model.model.model.layers.0.input_layernorm.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight",
    ],
)
def test_a_tensor_without_a_place_is_named(tmp_path, tensor):
    complaint = complaint_about(write_files(tmp_path, {**tensors_of(HIDDEN, HEADS * HEAD), tensor: (2, HIDDEN)}))
    assert tensor in complaint.message
    assert "merge_and_unload" in complaint.hint


def test_experts_are_left_alone(tmp_path):
    config = config_of("MixtralForCausalLM", num_local_experts=2)
    folder = write_files(tmp_path / "attention", tensors_of(HIDDEN, HEADS * HEAD))
    assert set(layout_of(AdapterFiles.open(folder), config)) == {(0, "qkv"), (1, "qkv")}
    expert = "base_model.model.model.layers.0.block_sparse_moe.experts.0.w1.lora_A.weight"
    folder = write_files(tmp_path / "expert", {**tensors_of(HIDDEN, HEADS * HEAD), expert: (2, HIDDEN)})
    assert expert in complaint_about(folder, config).message


def test_models_that_transformers_runs_have_no_adapters(tmp_path):
    config = replace(config_of(), needs_transformers=True)
    assert "Transformers" in complaint_about(write_small(tmp_path), config).message


def test_an_empty_file_is_refused(tmp_path):
    assert "holds no tensors" in complaint_about(write_files(tmp_path, {})).message
