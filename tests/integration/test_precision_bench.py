"""The bench of precisions: its files are what it says, and its figures are there and in order."""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import make_checkpoint
import make_gguf
import numpy
import precision
import pytest

from pie_engine.errors import Unsupported
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.gguf_file.folder import folder_for


@pytest.mark.parametrize(("kind", "steps"), [("Q6_K", 63), ("Q4_K", 15), ("Q5_0", 31), ("Q8_0", 255)])
def test_an_encoded_number_is_within_a_step_of_its_group(kind: str, steps: int) -> None:
    numbers = numpy.random.default_rng(0).standard_normal((8, 512)).astype(numpy.float32)
    numbers[0] = 0.0
    numbers[1] = numpy.abs(numbers[1])
    found = gguf.quants.dequantize(make_gguf.encoded(numbers, kind), gguf.GGMLQuantizationType[kind])
    widest = 2 * numpy.abs(numbers).max()
    assert numpy.abs(found - numbers).max() <= 1.1 * widest / steps
    assert not found[0].any()


def test_sizes_that_no_block_divides_get_another_type() -> None:
    layer = "model.layers.0.mlp.down_proj.weight"
    assert [make_gguf.type_of(layer, 256, kind) for kind in make_gguf.TYPES] == list(make_gguf.TYPES)
    assert [make_gguf.type_of(layer, 96, kind) for kind in make_gguf.TYPES] == ["BF16", "Q8_0", "Q8_0", "Q5_0"]
    assert make_gguf.type_of("lm_head.weight", 256, "Q4_K") == "Q6_K"


def test_other_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(Unsupported, match="is no Llama"):
        make_gguf.write_gguf(tmp_path, tmp_path / "model.gguf", "Q8_0")


def test_the_file_is_the_checkpoint(tmp_path: Path) -> None:
    folder = make_checkpoint.write_checkpoint(tmp_path / "tiny", "tiny")
    path = make_gguf.write_gguf(folder, tmp_path / "tiny.gguf", "BF16")
    ours, theirs = Checkpoint.open(folder_for(path, tmp_path)), Checkpoint.open(folder)
    assert ours.config.num_layers == theirs.config.num_layers
    assert {name: info.shape for name, info in ours.tensors.items()} == {
        name: info.shape for name, info in theirs.tensors.items()
    }


@pytest.mark.slow
def test_every_precision_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "read_bandwidth", lambda num_threads: 1e10)
    monkeypatch.setattr(precision, "SIZES", precision.Sizes(((1, 16), (2, 16)), (32,)))
    args = argparse.Namespace(
        model=None, shape="tiny", kernels="compiled", num_threads=1, rounds=1, seconds=0.0, examples=2, peers=None
    )
    result = precision.run(args, tmp_path)
    rows = {row["name"]: row for row in result["results"]}
    assert list(rows) == ["bf16", "int8", "int4", "Q8_0", "Q6_K", "Q4_K"]
    assert all(row["step_ms"].keys() == {"1x16", "2x16"} for row in rows.values())
    assert all(row["prefill_tokens_per_s"]["32"] > 0 for row in rows.values())
    assert rows["bf16"]["kl"] == 0.0 < rows["int8"]["kl"] < rows["int4"]["kl"]
    assert rows["Q8_0"]["kl"] < rows["Q6_K"]["kl"] < rows["Q4_K"]["kl"] < 0.1
    assert rows["bf16"]["weight_bytes"] > rows["int8"]["weight_bytes"] > rows["int4"]["weight_bytes"]
    assert precision.table(result).count("\n") == len(rows) + 1
