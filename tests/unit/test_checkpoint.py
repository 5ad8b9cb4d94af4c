"""Model folders as people have them, and every way in which one can be broken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pie_engine.errors import ModelError, NotFound, PieError, Unsupported
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.config import parse_config
from pie_engine.model.tensors import expected_tensors
from tests import models

RAW: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_checkpoint(tmp_path_factory.mktemp("written") / "model")


@pytest.fixture(scope="module")
def written_sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_checkpoint(tmp_path_factory.mktemp("sharded") / "model", max_shard_size="200KB")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "model"))


@pytest.fixture
def sharded(written_sharded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written_sharded, tmp_path / "model"))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the JSON header of a safetensors file; the data stays as it is."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + raw[end:])


def refusal(error: type[PieError], folder: Path) -> str:
    with pytest.raises(error) as refused:
        Checkpoint.open(folder)
    return f"{refused.value.message} | {refused.value.hint}"


def test_a_checkpoint_opens(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    config = checkpoint.config
    assert (config.hidden_size, config.num_layers, config.num_kv_heads, config.head_dim) == (64, 3, 2, 16)
    assert config.tie_embeddings
    assert config.eos_ids == (2,)
    assert config.bos_id == 1
    assert checkpoint.weight_bytes("bfloat16") * 2 == checkpoint.weight_bytes("float32")
    assert checkpoint.num_parameters == sum(info.end - info.start for info in checkpoint.tensors.values()) // 4


def test_a_sharded_checkpoint_opens(sharded: Path) -> None:
    checkpoint = Checkpoint.open(sharded)
    assert len({info.file for info in checkpoint.tensors.values()}) > 1
    assert set(checkpoint.tensors) == set(expected_tensors(checkpoint.config))


@pytest.mark.parametrize(
    ("content", "expected"),
    [({"eos_token_id": 7}, (7,)), ({"eos_token_id": [7, 9]}, (7, 9)), ({"eos_token_id": None}, (2,)), ({}, (2,))],
)
def test_end_tokens_come_from_the_generation_config_first(
    folder: Path, content: dict[str, Any], expected: object
) -> None:
    (folder / "generation_config.json").write_text(json.dumps(content))
    assert Checkpoint.open(folder).config.eos_ids == expected


def test_the_model_id_follows_configuration_and_weights(folder: Path) -> None:
    before = Checkpoint.open(folder).model_id
    assert Checkpoint.open(folder).model_id == before
    edit_json(folder / "config.json", lambda raw: raw.update(rms_norm_eps=1e-6))
    changed_config = Checkpoint.open(folder).model_id
    models.write_checkpoint(folder, dtype="bfloat16")
    changed_dtype = Checkpoint.open(folder).model_id
    assert len({before, changed_config, changed_dtype}) == 3


def test_the_model_id_tells_a_fine_tune_apart(folder: Path) -> None:
    """Same configuration, same headers, same sizes: one tensor has other numbers."""
    before = Checkpoint.open(folder)
    info = before.tensors["model.layers.1.mlp.up_proj.weight"]
    with info.file.open("r+b") as file:
        file.seek(info.start)
        file.write(os.urandom(info.end - info.start))
    assert Checkpoint.open(folder).model_id != before.model_id


def test_an_absent_folder(tmp_path: Path) -> None:
    assert "does not exist" in refusal(NotFound, tmp_path / "none")


def test_a_folder_without_config(tmp_path: Path) -> None:
    assert "has no config.json" in refusal(ModelError, tmp_path)
    (tmp_path / "model.gguf").touch()
    assert "GGUF" in refusal(ModelError, tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b""])
def test_unreadable_json(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert "config.json" in refusal(ModelError, folder)


def test_quantized_weights(folder: Path) -> None:
    edit_json(folder / "config.json", lambda raw: raw.update(quantization_config={"quant_method": "gptq"}))
    assert "'gptq'" in refusal(Unsupported, folder)


def test_a_missing_shard(sharded: Path) -> None:
    victim = sorted(sharded.glob("model-*.safetensors"))[1]
    victim.unlink()
    says = refusal(ModelError, sharded)
    assert victim.name in says
    assert "incomplete" in says


def test_a_shard_outside_the_folder_is_not_read(sharded: Path) -> None:
    (sharded.parent / "other.safetensors").write_bytes(next(sharded.glob("model-*.safetensors")).read_bytes())
    index = sharded / "model.safetensors.index.json"
    edit_json(index, lambda raw: raw["weight_map"].update({"model.norm.weight": "../other.safetensors"}))
    assert "../other.safetensors" in refusal(ModelError, sharded)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_a_damaged_index(sharded: Path, content: dict[str, Any]) -> None:
    (sharded / "model.safetensors.index.json").write_text(json.dumps(content))
    assert "no weight_map" in refusal(ModelError, sharded)


def test_truncated_data_names_file_and_bytes(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.stat().st_size
    os.truncate(path, whole - 1000)
    says = refusal(ModelError, folder)
    assert f"model.safetensors is truncated in its data: expected {whole} bytes, found {whole - 1000}" in says


def test_a_truncated_header(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)
    assert "truncated in its header" in refusal(ModelError, folder)


@pytest.mark.parametrize("content", [b"", b"abc", b"<html>not found</html>"])
def test_a_file_that_is_no_safetensors(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "is not a safetensors file" in refusal(ModelError, folder)


@pytest.mark.parametrize(
    "header",
    [
        b"[1, 2]",
        b"{broken",
        b'{"a": {"dtype": "F32"}}',
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
    ],
)
def test_a_damaged_header(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "damaged safetensors header" in refusal(ModelError, folder)


def test_a_file_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pie_engine.model.checkpoint._raw_header", refuse)
    assert "model.safetensors cannot be read: Permission denied" in refusal(ModelError, folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "is the download complete" in refusal(ModelError, folder)
    (folder / "pytorch_model.bin").touch()
    assert "convert the checkpoint to safetensors" in refusal(ModelError, folder)


def test_a_missing_tensor(folder: Path) -> None:
    edit_header(folder / "model.safetensors", lambda header: header.pop("model.layers.1.mlp.up_proj.weight"))
    assert "model.safetensors lacks tensor model.layers.1.mlp.up_proj.weight" in refusal(ModelError, folder)


def test_a_wrong_shape(folder: Path) -> None:
    edit_json(folder / "config.json", lambda raw: raw.update(intermediate_size=96))
    says = refusal(ModelError, folder)
    assert "has shape [160, 64], config.json asks for [96, 64]" in says


def test_a_dtype_that_is_not_supported(folder: Path) -> None:
    edit_header(folder / "model.safetensors", lambda header: header["model.norm.weight"].update(dtype="F8_E4M3"))
    assert "stored as F8_E4M3" in refusal(Unsupported, folder)


def test_bytes_are_for_packed_experts_only(tmp_path: Path) -> None:
    plain, packed = models.write_mxfp4(tmp_path)
    assert Checkpoint.open(packed).num_parameters == Checkpoint.open(plain).num_parameters
    name = "model.layers.0.mlp.experts.down_proj_blocks"
    edit_header(packed / "model.safetensors", lambda header: header.pop(name))
    assert f"lacks tensor {name}" in refusal(ModelError, packed)
    edit_header(plain / "model.safetensors", lambda header: header["model.norm.weight"].update(dtype="U8"))
    assert "stored as U8" in refusal(Unsupported, plain)


def test_offsets_that_do_not_fit_the_shape(folder: Path) -> None:
    def shorten(header: dict[str, Any]) -> None:
        header["model.norm.weight"]["data_offsets"][1] -= 4

    edit_header(folder / "model.safetensors", shorten)
    assert "wrong number of bytes" in refusal(ModelError, folder)


def test_defaults_and_derived_sizes() -> None:
    config = parse_config(RAW, eos_ids=(3,))
    assert (config.head_dim, config.num_kv_heads, config.max_context_tokens) == (16, 4, 2048)
    assert not config.tie_embeddings
    assert config.dtype == "float32"
    assert config.kv_numbers_per_token == 2 * 2 * 4 * 16
    assert parse_config({**RAW, "head_dim": 32, "torch_dtype": "bfloat16"}, eos_ids=()).head_dim == 32


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"architectures": None}, ModelError, "names no architecture"),
        ({"hidden_size": None}, ModelError, "has no hidden_size"),
        ({"hidden_size": "64"}, ModelError, "hidden_size must be a positive integer, not '64'"),
        ({"num_hidden_layers": 0}, ModelError, "num_hidden_layers must be a positive integer"),
        ({"rms_norm_eps": "x"}, ModelError, "rms_norm_eps must be a number"),
        ({"tie_word_embeddings": 1}, ModelError, "tie_word_embeddings must be true or false"),
        ({"num_key_value_heads": 3}, ModelError, "4 attention heads cannot share 3 key-value heads"),
        ({"head_dim": 15}, ModelError, "head_dim 15 is odd"),
        ({"bos_token_id": "a"}, ModelError, "token id 'a'"),
        ({"torch_dtype": "int8"}, Unsupported, "dtype 'int8'"),
        ({"hidden_act": "relu2"}, Unsupported, "activation 'relu2'"),
    ],
)
def test_configurations_that_are_refused_name_the_field(
    fields: dict[str, Any], error: type[PieError], says: str
) -> None:
    with pytest.raises(error) as refused:
        parse_config({**RAW, **fields}, eos_ids=(), where="config.json")
    assert says in refused.value.message
    assert "config.json" in refused.value.message
