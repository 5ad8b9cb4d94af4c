"""Where models are: paths, names and the hub cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pie_engine.config import Paths
from pie_engine.errors import InvalidInput, ModelError, NotFound
from pie_engine.hub.places import HubId, cached_ids, give_name, named, resolve


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache."""
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


def snapshot(hub: Path, revision: str) -> Path:
    folder = hub / "models--org--name" / "snapshots" / revision
    folder.mkdir(parents=True)
    return folder


def point(hub: Path, ref: str, commit: str) -> None:
    path = hub / "models--org--name" / "refs" / ref
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{commit}\n")


def test_pie_tiny_comes_along() -> None:
    assert (resolve("pie-tiny") / "config.json").is_file()


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path


def test_the_main_revision_of_a_cached_model(hub: Path) -> None:
    pinned = snapshot(hub, "aaa")
    snapshot(hub, "bbb")
    point(hub, "main", "aaa")
    assert resolve("org/name") == pinned


def test_a_branch_a_tag_or_a_commit(hub: Path) -> None:
    main, other = snapshot(hub, "aaa"), snapshot(hub, "bbb")
    point(hub, "main", "aaa")
    point(hub, "refs/pr/1", "bbb")
    assert resolve("org/name@refs/pr/1") == resolve("org/name@bbb") == other
    assert resolve("org/name@aaa") == main
    with pytest.raises(NotFound, match="revision `v2` of model 'org/name' is not in the local cache") as refused:
        resolve("org/name@v2")
    assert "`pie model pull org/name@v2`" in refused.value.hint


def test_the_newest_snapshot_without_a_main_revision(hub: Path) -> None:
    newest = snapshot(hub, "aaa")
    old = snapshot(hub, "bbb")
    os.utime(old, (time.time() - 100, time.time() - 100))
    assert resolve("org/name") == newest


def test_the_hub_cache_variable_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
    folder = snapshot(tmp_path / "other", "ccc")
    assert resolve("org/name") == folder


def test_a_model_that_is_not_there_names_the_way_out() -> None:
    with pytest.raises(NotFound, match="'org/name'") as refused:
        resolve("org/name")
    assert "`pie model pull org/name`" in refused.value.hint


@pytest.mark.parametrize("path", ["./none", "/none/at/all", "../../x", "~/surely/not/here", "org/name@../x"])
def test_a_path_that_is_not_there(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(NotFound, match="does not exist"):
        resolve(path)


def test_a_file_names_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(ModelError, match="is a file") as refused:
        resolve(str(tmp_path / "config.json"))
    assert str(tmp_path) in refused.value.hint


def test_a_name_leads_to_its_folder(tmp_path: Path) -> None:
    paths, folder = Paths(tmp_path / "home", tmp_path), tmp_path / "my-llama"
    folder.mkdir()
    give_name(paths.names, "mine", folder)
    give_name(paths.names, "mine", folder)
    assert resolve("mine", paths) == folder
    assert named(paths.names) == {"mine": folder}
    with pytest.raises(NotFound):
        resolve("mine")


def test_a_name_is_not_given_twice(tmp_path: Path) -> None:
    give_name(tmp_path / "names", "mine", tmp_path / "a")
    with pytest.raises(InvalidInput, match="`mine` is already the name of") as refused:
        give_name(tmp_path / "names", "mine", tmp_path / "b")
    assert "--name" in refused.value.hint


def test_the_shipped_models_name_is_taken(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="`pie-tiny` is the name of the model") as refused:
        give_name(tmp_path / "names", "pie-tiny", tmp_path)
    assert "--name" in refused.value.hint


@pytest.mark.parametrize("name", ["a/b", "..", "", ".hidden"])
def test_what_cannot_be_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be the name of a model"):
        give_name(tmp_path / "names", name, tmp_path)


def test_a_name_whose_folder_is_gone_says_so(tmp_path: Path) -> None:
    give_name(tmp_path / "models", "mine", tmp_path / "gone")
    with pytest.raises(NotFound, match=r"`mine` leads to .*gone, which does not exist") as refused:
        resolve("mine", Paths(tmp_path, tmp_path))
    assert "`pie model remove mine`" in refused.value.hint


def test_the_cache_is_listed_by_revision(hub: Path) -> None:
    assert list(cached_ids()) == []
    for commit in ("aaa", "bbb", "ccc"):
        snapshot(hub, commit)
    point(hub, "dev", "bbb")
    point(hub, "main", "aaa")
    point(hub, "gone", "zzz")
    assert [str(hub_id) for hub_id in cached_ids()] == ["org/name", "org/name@dev", "org/name@ccc"]
    assert HubId.parse("org/name@dev") == HubId("org/name", "dev")
