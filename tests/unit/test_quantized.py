"""Quantized linears: the numbers that they stand for, the kernels, and what they take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pie_engine.driver.base import Row
from pie_engine.driver.cpu import CpuDriver
from pie_engine.errors import ModelError, Unsupported
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.load import choose_kernels, load_model
from pie_engine.model.quantization import GROUP_SIZE, can_quantize, quantized_bytes
from pie_engine.model.quantized import Int4Linear, Int8Linear, QuantizedLinear, quantized
from pie_engine.model.span import Span
from pie_engine.protocol.sampling import GREEDY
from tests import models

PROMPT = [5, 9, 200, 31, 7, 77, 150, 3, 260, 18, 44, 90]


def rows(num_outputs: int = 48, num_inputs: int = 96) -> torch.Tensor:
    return torch.randn(num_outputs, num_inputs, generator=torch.Generator().manual_seed(1))


def test_a_number_is_off_by_half_a_step_at_most() -> None:
    matrix = rows()
    steps = matrix.abs().amax(1, keepdim=True) / 127
    assert ((quantized("int8", matrix).numbers() - matrix).abs() <= steps * 0.75).all()
    groups = matrix.unflatten(1, (-1, GROUP_SIZE))
    steps = ((groups.amax(2) - groups.amin(2)) / 15).repeat_interleave(GROUP_SIZE, 1)
    assert ((quantized("int4", matrix).numbers() - matrix).abs() <= steps * 0.75).all()


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("num_tokens", [1, 7, 16, 17, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_numbers_that_they_stand_for(kind: str, num_tokens: int, dtype: torch.dtype) -> None:
    matrix, bias = rows(), torch.randn(48).to(dtype)
    exact = QuantizedLinear((quantized(kind, matrix),), bias)  # type: ignore[arg-type]
    linear = exact.packed_by_torch()
    x = torch.randn(num_tokens, 96).to(dtype)
    expected = x.float() @ quantized(kind, matrix).numbers().t() + bias.float()
    tolerance = {"atol": 0.15, "rtol": 0.02}  # of bf16 activations and sums of 96
    torch.testing.assert_close(linear.of(x).float(), expected, **tolerance)
    torch.testing.assert_close(exact.of(x).float(), expected, atol=0.03, rtol=0.02)
    out = torch.empty(num_tokens, 48, dtype=dtype)
    linear.into(out, x)
    assert torch.equal(out, linear.of(x))
    residual = torch.ones(num_tokens, 48)
    linear.add_to(residual, x, 0.5)
    torch.testing.assert_close(residual, 1 + 0.5 * linear.of(x).float(), atol=1e-5, rtol=1e-5)


def test_a_row_of_zeros_stays_one() -> None:
    matrix = torch.zeros(16, 32)
    for kind in ("int8", "int4"):
        quants = quantized(kind, matrix)  # type: ignore[arg-type]
        assert not quants.numbers().any()
        assert not QuantizedLinear((quants,)).packed_by_torch().of(torch.randn(2, 32)).any()


def test_what_a_matrix_takes() -> None:
    int8, int4 = (QuantizedLinear((quantized(kind, rows()),)).packed_by_torch() for kind in ("int8", "int4"))
    assert isinstance(int8, Int8Linear)
    assert isinstance(int4, Int4Linear)
    assert quantized_bytes("int8", 96, 48) == int8.weight.nbytes + int8.scales.nbytes
    assert quantized_bytes("int4", 96, 48) == int4.packed.nbytes + int4.scales_and_middles.nbytes
    assert not can_quantize("int4", 100, 48)
    assert not can_quantize("int4", 96, 40)
    assert not can_quantize("none", 96, 48)


def logits(folder: Path, quantize: str) -> torch.Tensor:
    model = load_model(Checkpoint.open(folder), torch.float32, "torch", quantize)  # type: ignore[arg-type]
    cache = model.new_cache(num_pages=2, page_size=16)
    return model.forward([Span(0, len(PROMPT), 0, [0, 1])], PROMPT, cache, list(range(len(PROMPT))))


@pytest.mark.parametrize(("shape", "most"), [("qwen2", 0.4), ("mixtral", 0.6)])
def test_a_model_loses_little_with_int8_and_more_with_int4(shape: str, most: float, tmp_path: Path) -> None:
    """With experts a little more: where two are nearly as good, another one may be chosen."""
    folder = models.write_checkpoint(tmp_path / "model", shape, gain=1.0)
    exact = logits(folder, "none")
    int8, int4 = ((logits(folder, kind) - exact).square().mean().sqrt() / exact.std() for kind in ("int8", "int4"))
    assert 0 < int8 < 0.05
    assert int8 < int4 < most


def test_the_driver_says_what_it_takes_and_keeps_its_kv_apart(tmp_path: Path) -> None:
    folder = models.write_checkpoint(tmp_path / "model")
    drivers = [
        CpuDriver.load(folder, dtype="float32", num_threads=1, quantize=kind) for kind in ("none", "int8", "int4")
    ]
    sizes = [driver.capabilities.weight_bytes for driver in drivers]
    assert sizes[0] > sizes[1] > sizes[2]
    assert len({driver.capabilities.model_id for driver in drivers}) == 3
    for driver in drivers:
        driver.allocate_kv(2)
        assert driver.execute([Row(PROMPT, 0, [0, 1], GREEDY)])[0].token is not None


def test_memory_that_is_short_is_answered_with_fewer_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = models.write_checkpoint(tmp_path / "model")
    monkeypatch.setattr("pie_engine.driver.cpu_choice.available_bytes", lambda: 1 << 20)
    for quantize, hint in (("none", 'quantize = "int8"'), ("int8", 'quantize = "int4"')):
        with pytest.raises(ModelError) as refused:
            CpuDriver.load(folder, dtype="bfloat16", kernels="torch", quantize=quantize)  # type: ignore[arg-type]
        assert hint in refused.value.hint


def test_what_cannot_be_quantized_is_refused(tmp_path: Path) -> None:
    folder = models.write_checkpoint(tmp_path / "model", "gpt-oss")
    with pytest.raises(Unsupported, match="cannot be quantized on load"):
        logits(folder, "int8")
    config = Checkpoint.open(models.write_checkpoint(tmp_path / "plain", "wide-heads")).config
    assert choose_kernels("compiled", config, 16) == "compiled"
    assert choose_kernels("auto", config, 16, "int8") == "torch"
    with pytest.raises(Unsupported, match="its weights are quantized, and its heads of 24 are no whole vectors"):
        choose_kernels("compiled", config, 16, "int8")
