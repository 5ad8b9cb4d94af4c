"""A model with a draft model: what is checked before either is loaded, and what the other processes are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pie_cli.commands.serve import _memory_of
from pie_engine.config import ModelSection, Paths
from pie_engine.core import load
from pie_engine.core.load import load_core
from pie_engine.driver.fake import FakeDriver
from pie_engine.errors import InvalidConfig, NotFound
from tests.unit.core_rig import byte_tokenizer


def write_model(folder: Path, merges: list[tuple[str, str]] | None = None) -> Path:
    folder.mkdir()
    byte_tokenizer(merges or [])._load().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    return folder


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the models that have been loaded."""
    folders: list[str] = []
    real = load.load_driver

    def noting(name: str, folder: Path, **settings: Any) -> Any:
        folders.append(folder.name)
        return real(name, folder, **settings)

    monkeypatch.setattr(load, "load_driver", noting)
    return folders


def begin(tmp_path: Path, stages: list[str] | None = None, **settings: Any) -> tuple[Any, dict[str, Any]]:
    section = ModelSection(path=str(tmp_path / "big"), driver="fake", num_pages=8, **settings)
    return load_core(section, Paths(tmp_path, tmp_path), (stages if stages is not None else []).append)


def test_both_are_loaded_and_both_are_told(tmp_path: Path, loaded: list[str]) -> None:
    write_model(tmp_path / "big")
    small = write_model(tmp_path / "small")
    stages: list[str] = []
    core, detail = begin(tmp_path, stages, draft_model=str(small), draft_kv_memory_mb=2)
    assert core.facts.has_draft_model
    assert loaded == ["small", "big"]
    assert stages == ["loading big", f"loading {small}"]
    page_bytes = detail["page_bytes"]
    assert detail["draft_model"] == {
        "model": str(small),
        "folder": str(small),
        "weight_bytes": 0,
        "num_pages": (2 << 20) // page_bytes,
        "page_bytes": page_bytes,
    }


def test_without_one_nothing_of_it_is_there(tmp_path: Path, loaded: list[str]) -> None:
    write_model(tmp_path / "big")
    core, detail = begin(tmp_path)
    assert not core.facts.has_draft_model
    assert "draft_model" not in detail
    assert loaded == ["big"]


def test_another_tokenizer_is_refused_before_anything_is_loaded(tmp_path: Path, loaded: list[str]) -> None:
    write_model(tmp_path / "big", [("a", "b")])
    small = write_model(tmp_path / "small", [("a", "c")])
    with pytest.raises(InvalidConfig, match=f"{small} cannot be the draft model of big: token 256 is 'ac' there"):
        begin(tmp_path, draft_model=str(small))
    assert loaded == []


def test_one_that_is_not_there_is_named(tmp_path: Path, loaded: list[str]) -> None:
    write_model(tmp_path / "big")
    with pytest.raises(NotFound, match="gone"):
        begin(tmp_path, draft_model=str(tmp_path / "gone"))
    assert loaded == []


def test_memory_for_less_than_a_page_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "big")
    small = write_model(tmp_path / "small")
    real = FakeDriver.capabilities.fget
    assert real is not None

    monkeypatch.setattr(FakeDriver, "capabilities", property(lambda driver: replace(real(driver), page_bytes=3 << 20)))
    with pytest.raises(
        InvalidConfig, match="draft_kv_memory_mb = 2 does not hold one KV page of 3145728 bytes"
    ) as caught:
        begin(tmp_path, draft_model=str(small), draft_kv_memory_mb=2)
    assert "draft_kv_memory_mb" in caught.value.hint


def test_serve_says_the_memory_of_both() -> None:
    model = {"dtype": "bfloat16", "weight_bytes": 80 << 20, "num_pages": 4, "page_bytes": 1 << 20, "page_size": 16}
    assert _memory_of(model) == " (bfloat16: 80 MiB of weights, 4 MiB of KV for 64 tokens)"
    assert _memory_of({**model, "quantize": "int8"}).startswith(" (weights in int8, bfloat16: 80 MiB of weights")
    draft = {"model": "small", "weight_bytes": 8 << 20, "num_pages": 6, "page_bytes": 1 << 19}
    assert _memory_of({**model, "draft_model": draft}) == (
        " (bfloat16: 80 MiB of weights, 4 MiB of KV for 64 tokens; small guesses: 8 MiB of weights, 3 MiB of KV)"
    )
