"""`pie gc`: what is old goes, what is young or in use stays, and nothing that the user made is touched."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from pie_cli.leftovers import CACHES, find_leftovers
from pie_cli.main import invoke
from pie_engine.config import load_config
from tests.unit.cli_standin import short_home

DAY_S = 86400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with short_home(monkeypatch):
        monkeypatch.setenv("PIE_CACHE", str(tmp_path / "cache"))
        yield tmp_path / "cache"


def write(path: Path, days: float, size: int = 5000) -> Path:
    """A file, or a folder with one in it, that was used so many days ago."""
    file = path if path.suffix else path / "inside" / "file"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    then = time.time() - days * DAY_S
    for each in (file, *file.parents):
        if each == path.parent:
            break
        os.utime(each, (then, then))
    return path


def test_what_is_old_goes_and_the_rest_stays(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = [write(cache / name / ("a.cwasm" if name == "runtime" else "a"), 8) for name in CACHES]
    young = [write(cache / name / ("b.cwasm" if name == "runtime" else "b"), 6) for name in CACHES]
    home = load_config().paths.home
    kept = [write(home / "contexts" / "tale.safetensors", 400), write(home / "models" / "m", 400)]
    draft = write(home / "draft-1", 2)
    assert invoke(["gc", "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["dry_run"], shown["processes"], len(shown["files"])) == (True, None, len(CACHES))
    assert all(path.exists() for path in (*old, *young, *kept))
    assert invoke(["gc"]) == 0
    out, err = capsys.readouterr()
    assert "compiled kernels, one set for each version and kind of model       1" in out
    assert "no daemon answers: ended processes in" in err
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in (*young, *kept, draft))
    assert invoke(["gc", "--older-than", "0"]) == 0
    assert not any(path.exists() for path in (*young, draft))
    assert all(path.exists() for path in kept)
    capsys.readouterr()
    assert invoke(["gc", "--older-than", "0"]) == 0
    assert capsys.readouterr().err.startswith("nothing is older than 0 days\n")


def test_a_folder_is_as_old_as_what_was_touched_in_it_last(cache: Path) -> None:
    folder = write(cache / "kernels" / "a", 30)
    (folder / "inside" / "new").write_bytes(b"")
    assert not any(each.paths for each in find_leftovers(load_config().paths, 7, is_running=False))


def test_what_a_running_daemon_may_hold_stays(cache: Path) -> None:
    write(cache / "programs" / "a", 0.5)
    write(cache / "programs" / "b", 1.5)
    paths = load_config().paths
    assert [p.name for each in find_leftovers(paths, 0, is_running=True) for p in each.paths] == ["b"]
    assert [p.name for each in find_leftovers(paths, 0, is_running=False) for p in each.paths] == ["a", "b"]


def test_a_link_goes_and_not_what_it_points_at(cache: Path, tmp_path: Path) -> None:
    precious = write(tmp_path / "precious", 100)
    (cache / "gguf").mkdir(parents=True)
    link = cache / "gguf" / "link"
    link.symlink_to(precious)
    assert invoke(["gc", "--older-than", "0"]) == 0
    assert not link.is_symlink()
    assert (precious / "inside" / "file").exists()


@pytest.mark.parametrize("words", [["--older-than", "-1"], ["--older-than", "week"], ["x"]])
def test_wrong_words_are_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["gc", *words]) == 2
    assert "error: " in capsys.readouterr().err


def test_what_a_starting_daemon_may_be_building_stays_and_that_is_said(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds its lock, and does not answer yet."""
    young = write(cache / "kernels" / "a", 0.5)
    paths = load_config().paths
    paths.run.mkdir(parents=True)
    paths.daemon_lock.write_text(json.dumps({"os_pid": os.getpid()}))
    with paths.daemon_lock.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert invoke(["gc", "--older-than", "0"]) == 0
        err = capsys.readouterr().err
        assert young.exists()
        assert "`pie stop` first takes that, too" in err
    assert invoke(["gc", "--older-than", "0"]) == 0
    assert not young.exists()
    assert "`pie stop` first" not in capsys.readouterr().err
