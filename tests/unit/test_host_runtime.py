"""Building the runtime once: races, crashes and stale files. The build itself is replaced by a small component."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from pie_engine.builder import componentize
from pie_engine.errors import Internal, InvalidConfig
from pie_engine.host import runtime
from pie_engine.host.engine import new_engine


class Builds:
    """Stands in for componentize-py."""

    def __init__(self) -> None:
        self.num = 0
        self.seconds = 0.0

    def __call__(self, _app: str, _folder: Path, wasm: Path) -> None:
        self.num += 1
        time.sleep(self.seconds)
        self.write(wasm)

    def write(self, wasm: Path) -> None:
        wasm.write_bytes(wat2wasm("(component)"))


@pytest.fixture
def builds(monkeypatch) -> Builds:
    builds = Builds()
    monkeypatch.setattr(runtime, "componentize", builds)
    return builds


def load(cache: Path, reports: list[tuple[str, float]] | None = None) -> None:
    heard = [] if reports is None else reports
    runtime.load_runtime(new_engine(), cache, lambda text, fraction: heard.append((text, fraction)))


def test_it_is_built_once_with_progress_that_only_rises(builds, tmp_path):
    reports: list[tuple[str, float]] = []
    load(tmp_path, reports)
    fractions = [fraction for _, fraction in reports]
    assert fractions == sorted(fractions)
    assert fractions[0] < 0.1
    assert fractions[-1] == 1.0
    load(tmp_path)
    assert builds.num == 1


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(builds, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path / "file" / "cache")
    assert caught.value.message == f"cannot write to the cache folder {tmp_path / 'file' / 'cache'}: Not a directory"
    assert "PIE_CACHE" in caught.value.hint


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_disk_that_takes_no_more_is_named_too(builds, tmp_path, monkeypatch, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(builds, "write", refuse)
    with pytest.raises(InvalidConfig, match=os.strerror(number)):
        load(tmp_path)


def test_other_errors_are_not_blamed_on_the_cache(builds, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "no python here")

    monkeypatch.setattr(builds, "write", refuse)
    with pytest.raises(FileNotFoundError):
        load(tmp_path)


def test_a_runtime_that_can_only_be_read_is_as_good(builds, tmp_path, monkeypatch):
    load(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refuse)
    load(tmp_path)
    assert builds.num == 1


def test_two_at_once_build_once(builds, tmp_path):
    builds.seconds = 0.3
    reports: list[tuple[str, float]] = []
    threads = [threading.Thread(target=load, args=(tmp_path, reports)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds.num == 1
    assert any("waiting" in text for text, _ in reports)


def test_half_a_file_is_built_again(builds, tmp_path):
    load(tmp_path)
    (path,) = (tmp_path / "runtime").glob("*.cwasm")
    path.write_bytes(path.read_bytes()[:100])
    load(tmp_path)
    assert builds.num == 2


def test_a_failed_build_leaves_nothing_and_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(componentize, "WORLD", "no-such-world")
    with pytest.raises(Internal, match="no-such-world"):
        load(tmp_path)
    assert list((tmp_path / "runtime").glob("*.cwasm")) == []
    assert list((tmp_path / "runtime").glob("build-*")) == []


def test_unused_ones_of_other_versions_go(builds, tmp_path):
    old, recent = tmp_path / "runtime" / "old.cwasm", tmp_path / "runtime" / "recent.cwasm"
    old.parent.mkdir()
    for path in (old, recent):
        path.touch()
    os.utime(old, (0, 0))
    load(tmp_path)
    assert not old.exists()
    assert recent.exists()


def test_the_digest_follows_the_sources(monkeypatch):
    digest = runtime.runtime_digest()
    assert runtime.runtime_digest() == digest
    monkeypatch.setattr(runtime, "SETTINGS", "other")
    assert runtime.runtime_digest() != digest


def test_a_disk_without_room_is_refused_before_the_build(builds, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "BUILD_BYTES", 1 << 60)
    with pytest.raises(InvalidConfig, match=r"cannot write to the cache folder .*: No space left on device") as caught:
        load(tmp_path)
    assert "PIE_CACHE" in caught.value.hint
    assert builds.num == 0
