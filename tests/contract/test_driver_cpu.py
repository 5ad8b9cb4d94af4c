"""What is particular to the CPU driver: the choices it makes at load, and rows whose model breaks."""

from __future__ import annotations

import logging
from array import array
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import transformers

from pie_engine.driver import cpu_tuning
from pie_engine.driver.base import Row
from pie_engine.driver.cpu import CpuDriver
from pie_engine.driver.create import check_memory
from pie_engine.errors import InvalidConfig, ModelError, Unsupported
from pie_engine.hub import memory
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.kernels.support import kv_bytes_per_token
from pie_engine.protocol.sampling import GREEDY, Probes
from tests import models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_checkpoint(tmp_path_factory.mktemp("cpu") / "model", dtype="bfloat16")


@pytest.fixture(autouse=True)
def _restore_threads():
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def load(folder: Path, **options: object) -> CpuDriver:
    driver = CpuDriver.load(folder, **{"num_threads": 1, "dtype": "float32", **options})  # type: ignore[arg-type]
    driver.allocate_kv(16)
    return driver


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_explicit_dtype_is_honoured(folder: Path, dtype: str) -> None:
    assert load(folder, dtype=dtype).capabilities.dtype == dtype


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({"avx512_f": True}, "float32")],
)
def test_auto_takes_bf16_where_the_cpu_has_it_and_says_so(
    folder: Path,
    capabilities: dict[str, bool],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    with caplog.at_level(logging.INFO, logger="pie_engine"):
        assert load(folder, dtype="auto", kernels="torch").capabilities.dtype == expected
    assert f"torch.{expected}: what this CPU" in caplog.text


def test_compiled_kernels_keep_a_bf16_checkpoint_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    capabilities = load(folder, dtype="auto").capabilities
    assert (capabilities.dtype, capabilities.kernels) == ("bfloat16", "compiled")


def test_what_the_compiled_kernels_lack_runs_on_torch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = models.write_checkpoint(tmp_path / "model")
    with caplog.at_level(logging.INFO, logger="pie_engine"):
        assert load(folder, page_size=8).capabilities.kernels == "torch"
    assert "torch runs this model, because for compiled kernels pages have 8 tokens, not 16" in caplog.text
    with pytest.raises(Unsupported, match="the compiled kernels cannot run this model") as refused:
        load(folder, page_size=8, kernels="compiled")
    assert refused.value.hint == "use kernels `auto`"


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
def test_pages_are_as_large_as_the_driver_says(tmp_path: Path, kernels: str) -> None:
    """Heads of 24 numbers: the compiled kernels keep them as 32."""
    folder = models.write_checkpoint(tmp_path / "model", head_dim=24)
    driver = load(folder, kernels=kernels)
    page_bytes = driver.capabilities.page_bytes
    assert sum(size for _, size in driver.kv_regions) == (16 + 1) * page_bytes
    config = Checkpoint.open(folder).config
    assert page_bytes == 16 * kv_bytes_per_token(config, "float32", 16, is_compiled=kernels == "compiled")


def test_auto_takes_bf16_when_fp32_does_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint.open(folder)
    monkeypatch.setattr(cpu_tuning, "available_bytes", lambda: checkpoint.weight_bytes("float32"))
    assert cpu_tuning.choose_dtype("auto", checkpoint) == torch.bfloat16


def test_a_context_limit(folder: Path) -> None:
    assert load(folder).capabilities.max_context_tokens == 256
    assert load(folder, max_context_tokens=100).capabilities.max_context_tokens == 100
    with pytest.raises(InvalidConfig, match="the model takes 256"):
        load(folder, max_context_tokens=257)


def test_auto_keeps_an_fp32_checkpoint_in_fp32(tmp_path: Path) -> None:
    folder = models.write_checkpoint(tmp_path / "model", dtype="float32")
    assert cpu_tuning.choose_dtype("auto", Checkpoint.open(folder)) == torch.float32


@pytest.mark.parametrize(("many_s", "expected"), [(1.0, 1), (0.9, 1), (0.8, 4)])
def test_threads_are_taken_when_they_pay(
    folder: Path, many_s: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_tuning.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setattr(cpu_tuning, "_decode_s", lambda model, num_threads: many_s if num_threads > 1 else 1.0)
    assert load(folder, num_threads=0, kernels="torch").capabilities.num_threads == expected
    assert torch.get_num_threads() == expected
    assert load(folder, num_threads=0).capabilities.num_threads == expected
    assert torch.get_num_threads() == 1, "the kernels have threads of their own"


def test_a_small_model_stays_on_one_core_unmeasured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(cpu_tuning.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setattr(cpu_tuning, "_decode_s", lambda model, num_threads: measured.append(num_threads) or 0.001)
    assert load(folder, num_threads=0).capabilities.num_threads == 1
    assert measured == [1]


def test_deterministic_torch_has_one_thread_unmeasured_and_kv_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_tuning, "_decode_s", lambda model, num_threads: pytest.fail("a measurement"))
    plain = load(folder, kernels="torch").capabilities
    exact = load(folder, kernels="torch", num_threads=0, deterministic=True).capabilities
    assert (plain.is_deterministic, exact.is_deterministic, exact.num_threads) == (False, True, 1)
    slow = load(folder, kernels="torch", num_threads=2, deterministic=True).capabilities
    assert (slow.is_deterministic, slow.num_threads) == (True, 2)
    assert (exact.one_by_one, slow.one_by_one) == ("", "2 threads cut rows elsewhere in other steps")
    assert len({plain.model_id, exact.model_id, slow.model_id}) == 3, "their KV differs in the last bits"


def test_compiled_kernels_are_deterministic_anyway(folder: Path) -> None:
    plain, exact = (load(folder, deterministic=value).capabilities for value in (False, True))
    assert plain == exact
    assert plain.is_deterministic


def test_a_real_calibration_chooses_something(folder: Path) -> None:
    driver = load(folder, num_threads=0, dtype="auto")
    assert driver.capabilities.num_threads >= 1
    assert driver.capabilities.dtype in ("float32", "bfloat16")


def test_the_kv_of_another_dtype_or_other_kernels_is_not_the_same_kv(folder: Path) -> None:
    ids = {
        load(folder, dtype=dtype, kernels=kernels).capabilities.model_id
        for dtype in ("float32", "bfloat16")
        for kernels in ("compiled", "torch")
    }
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 1000 << 10), ("300000", 300_000 - 150_000), ("100", 0), (None, 1000 << 10)]
)
def test_available_memory_is_the_containers(tmp_path: Path, limit: str | None, expected: int) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4000 kB\nMemAvailable:    1000 kB\nHugePages_Total:       0\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("200000\n")
        (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 50000\n")
    assert memory.available_bytes(tmp_path / "meminfo", tmp_path) == expected


@pytest.mark.parametrize(
    ("available_mib", "dtype", "hint"),
    [
        (100, "float32", 'set dtype = "bfloat16"'),
        (100, "bfloat16", 'set quantize = "int8"'),
        (300, "bfloat16", "set kv_memory_mb = 43 or less"),
        (300, "float32", 'set kv_memory_mb = 43 or less, or dtype = "bfloat16"'),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_the_numbers(
    folder: Path, available_mib: int, dtype: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pie_engine.driver.cpu_choice.available_bytes", lambda: available_mib << 20)
    numbers = (
        rf"needs 369 MiB \(1 for weights, 112 for KV pages, 256 for the work\) in {dtype}; {available_mib} MiB are"
    )
    with pytest.raises(ModelError, match=numbers) as refused:
        load(folder, dtype=dtype, kv_bytes=112 << 20)
    assert refused.value.hint.startswith(hint)


def test_a_model_and_its_draft_model_have_to_fit_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told from the headers of their files, before either is loaded."""
    settings, draft_settings = {"dtype": "bfloat16", "kv_bytes": 112 << 20}, {"dtype": "bfloat16", "kv_bytes": 40 << 20}
    monkeypatch.setattr("pie_engine.driver.cpu_choice.available_bytes", lambda: 410 << 20)
    check_memory("cpu", folder, settings, folder, {**draft_settings, "kv_bytes": 1 << 20})
    load(folder, **settings)
    numbers = r"needs 409 MiB \(1 for weights, 112 for KV pages, 41 for the draft model, 256 for the work\) in bfloat16"
    monkeypatch.setattr("pie_engine.driver.cpu_choice.available_bytes", lambda: 400 << 20)
    with pytest.raises(ModelError, match=numbers) as refused:
        check_memory("cpu", folder, settings, folder, draft_settings)
    assert refused.value.hint.startswith("set kv_memory_mb = 103 or less")
    assert refused.value.hint.endswith(', or draft_model = ""')


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_without_a_distribution_fails_alone(tmp_path: Path, bad: float, kernels: str) -> None:
    driver = load(models.write_checkpoint(tmp_path / "untied", "mha"), kernels=kernels)
    rows = [Row([5, 6, 7], 0, [0], GREEDY), Row([9, 8], 0, [1], GREEDY), Row([11], 0, [2], GREEDY)]
    healthy = driver.execute(rows)
    embedding, size = driver._model._embedding, driver.capabilities.hidden_size
    (embedding if kernels == "torch" else embedding._numbers.view(np.float32).reshape(-1, size))[9] = bad
    broken = driver.execute(rows)
    assert broken[1].token is None
    assert broken[1].error is not None
    assert broken[1].error.code == "internal"
    assert "NaN" in broken[1].error.message
    assert (broken[0].token, broken[2].token) == (healthy[0].token, healthy[2].token)


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
def test_a_page_full_of_nan_does_not_reach_its_next_owner(folder: Path, kernels: str) -> None:
    driver = load(folder, kernels=kernels)
    row = Row([5], 3, [0], GREEDY, want_logprob=True)
    driver.execute([Row([3, 4, 6], 0, [0])])
    [before] = driver.execute([row])
    assert driver._cache is not None
    driver._cache.keys[:, 0, :, 4:] = float("nan")
    driver._cache.values[:, 0, 4:] = float("nan")
    [after] = driver.execute([row])
    assert (after.token, after.logprob) == (before.token, before.logprob)


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_the_hidden_state_is_that_of_transformers(tmp_path: Path, kernels: Literal["torch", "compiled"]) -> None:
    """After the final norm, as the output layer gets it."""
    models.write_tokenizer(tmp_path)
    models.write_checkpoint(tmp_path)
    driver = CpuDriver.load(tmp_path, dtype="float32", num_threads=1, page_size=16, kernels=kernels)
    driver.allocate_kv(8)
    prompt = list(range(5, 30))
    driver.execute([Row(prompt[:-1], 0, range(8))])
    [result] = driver.execute([Row(prompt[-1:], 24, range(8), GREEDY, probes=Probes(hidden=True, logits=True))])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.inference_mode():
        expected = theirs(torch.tensor([prompt]), output_hidden_states=True)
    assert list(array("f", result.probed.hidden)) == pytest.approx(expected.hidden_states[-1][0, -1].tolist(), abs=1e-4)
    assert list(array("f", result.probed.logits)) == pytest.approx(expected.logits[0, -1].tolist(), abs=1e-3)
