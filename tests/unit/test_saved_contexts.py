"""Saved contexts as files: whole or not there, counted, and found again by their user only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pie_engine.errors import InvalidInput, LimitExceeded, NotFound
from pie_engine.protocol.sight import Sight
from pie_engine.store import contexts
from pie_engine.store.contexts import MIB, SavedContexts
from pie_engine.store.manifest import Manifest


@pytest.fixture
def saved(tmp_path: Path) -> SavedContexts:
    return SavedContexts(tmp_path)


def write(
    saved: SavedContexts,
    name: str,
    blob: bytes = b"kv",
    *,
    user: str = "ann",
    quota: int = MIB,
    sight: Sight | None = None,
) -> Manifest:
    return saved.write(
        user, "m", name, blob, model_id="id", page_size=16, tokens=[1, 2], meta="{}", sight=sight, quota_bytes=quota
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_read_again(saved: SavedContexts, tmp_path: Path):
    manifest = write(saved, "a story/1")
    again = SavedContexts(tmp_path)
    assert again.read("ann", "m", "a story/1") == manifest
    assert again.read_blob("ann", "m", manifest) == b"kv"
    assert (manifest.tokens, manifest.model_id, manifest.page_size, manifest.meta) == ([1, 2], "id", 16, "{}")


def test_names_are_those_of_a_user_and_a_model(saved: SavedContexts):
    write(saved, "b")
    write(saved, "a")
    write(saved, "c", user="..")
    assert [manifest.name for manifest in saved.list("ann", "m")] == ["a", "b"]
    assert saved.list("ann", "other") == []
    with pytest.raises(NotFound, match="`a` with model m"):
        saved.read("bob", "m", "a")


def test_a_missing_name_says_where_it_is_or_what_is_near(saved: SavedContexts):
    write(saved, "manual")
    with pytest.raises(NotFound) as caught:
        saved.read("ann", "other", "manual")
    assert caught.value.hint == "it is saved with model m"
    with pytest.raises(NotFound) as caught:
        saved.read("ann", "m", "manul")
    assert caught.value.hint == "did you mean `manual`?"
    with pytest.raises(NotFound) as caught:
        saved.read("bob", "m", "manual")
    assert caught.value.hint == "`pie context list` shows those that there are"


def test_nothing_is_written_outside_of_the_folder(tmp_path: Path):
    saved = SavedContexts(tmp_path / "contexts")
    write(saved, "../../x", user="../..")
    assert [path.name for path in tmp_path.iterdir()] == ["contexts"]


def test_replacing_leaves_one_manifest_and_one_blob(saved: SavedContexts, tmp_path: Path):
    write(saved, "a", b"old")
    manifest = write(saved, "a", b"new")
    assert files(tmp_path) == sorted(["a.json", manifest.blob])
    assert saved.read_blob("ann", "m", saved.read("ann", "m", "a")) == b"new"


def test_deleting_takes_the_blob_along(saved: SavedContexts, tmp_path: Path):
    manifest = write(saved, "a")
    saved.delete("ann", "m", "a")
    assert files(tmp_path) == []
    with pytest.raises(NotFound):
        saved.delete("ann", "m", "a")
    with pytest.raises(NotFound, match="is gone"):
        saved.read_blob("ann", "m", manifest)


def test_a_crash_before_the_manifest_is_in_place_leaves_the_old_content(
    saved: SavedContexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(saved, "a", b"old")
    real = contexts._write_durably

    def crash(path: Path, data: bytes) -> None:
        if path.suffix == ".json":
            raise RuntimeError("killed")
        real(path, data)

    monkeypatch.setattr(contexts, "_write_durably", crash)
    with pytest.raises(RuntimeError):
        write(saved, "a", b"new")
    assert saved.read_blob("ann", "m", saved.read("ann", "m", "a")) == b"old"
    monkeypatch.setattr(contexts, "_write_durably", real)
    # What the crash has left goes when it is old enough not to be on its way.
    assert len(files(tmp_path)) == 3
    for path in tmp_path.rglob("kv-*"):
        os.utime(path, (0, 0))
    write(saved, "b")
    assert len(files(tmp_path)) == 4


def test_a_full_disk_says_so_and_leaves_nothing(saved: SavedContexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(contexts, "_write_durably", full)
    with pytest.raises(LimitExceeded, match="No space left on device") as caught:
        write(saved, "a")
    assert caught.value.code == "disk_limit"
    assert files(tmp_path) == []


def test_the_quota_counts_what_is_there_but_not_what_is_replaced(saved: SavedContexts):
    write(saved, "a", b"x" * MIB, quota=2 * MIB)
    write(saved, "a", b"y" * MIB, quota=2 * MIB)
    write(saved, "b", b"z" * MIB, quota=2 * MIB)
    with pytest.raises(LimitExceeded, match=r"saved with model m have 2.0 of 2.0 MiB") as caught:
        write(saved, "c", quota=2 * MIB)
    assert "saved_contexts_mb" in caught.value.hint
    write(saved, "c", user="bob", quota=2 * MIB)


@pytest.mark.parametrize("change", [b"", b"{", b"flip"])
def test_a_damaged_manifest_is_named(saved: SavedContexts, tmp_path: Path, change: bytes):
    write(saved, "a")
    path = next(tmp_path.rglob("a.json"))
    path.write_bytes(path.read_bytes().replace(b"[1,2]", b"[1,3]") if change == b"flip" else change)
    with pytest.raises(InvalidInput, match="`a` is damaged"):
        saved.read("ann", "m", "a")
    assert saved.list("ann", "m") == []
    assert [(name, type(found)) for name, found in saved.scan("ann", "m").items()] == [("a", InvalidInput)]
    write(saved, "a")
    assert saved.read("ann", "m", "a").tokens == [1, 2]


@pytest.mark.parametrize(
    ("found", "says"),
    [(1, "has format 1; this version of Pie reads 2 to 3"), (4, "a later version of Pie: it has format 4, this")],
)
def test_a_manifest_of_another_format_is_refused_with_both_numbers(
    saved: SavedContexts, tmp_path: Path, found: int, says: str
):
    write(saved, "a")
    path = next(tmp_path.rglob("a.json"))
    path.write_bytes(path.read_bytes().replace(b'"format":2', b'"format":%d,"what is that":1' % found))
    with pytest.raises(InvalidInput, match=says):
        saved.read("ann", "m", "a")


def test_a_manifest_that_an_earlier_version_has_written_is_read(saved: SavedContexts, tmp_path: Path):
    """And what it could have written is written so that it reads it."""
    write(saved, "a")
    path = next(tmp_path.rglob("a.json"))
    path.write_bytes(
        b'{"format":2,"name":"a","model_id":"id","page_size":16,"tokens":[1,2],"adapter":"","adapter_id":"","meta":"{}",'
        b'"blob":"kv-0.safetensors","blob_bytes":2,"blob_checksum":"ab","saved_at":7.5,'
        b'"checksum":"264728b6f1751252da001440b10a863ecdad0f4bb1a80bd3fe6737ab26f4f0c3"}'
    )
    manifest = saved.read("ann", "m", "a")
    assert (manifest.tokens, manifest.seen, manifest.format) == ([1, 2], None, 2)


SIGHT = Sight(drops=[(1, [(0, 1)])], windows=[(0, 3, 1)], jumps=[(1, 9)], masks=[(1, [(1, 2)])], gone=[(0, 1)])


def test_what_tokens_see_is_read_again(saved: SavedContexts):
    manifest = write(saved, "a", sight=SIGHT)
    assert saved.read("ann", "m", "a") == manifest
    assert (manifest.seen, manifest.format) == (SIGHT, 3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (Sight(drops=[(2, [(0, 1)])]), "its holes, windows or masks are of tokens"),
        (Sight(windows=[(1, 3, 1), (0, 3, 1)]), "its holes, windows or masks are of tokens"),
        (Sight(drops=[(1, [(0, 3)])]), "its holes are no ranges of its tokens"),
        (Sight(drops=[(1, [(1, 0)])]), "its holes are no ranges of its tokens"),
        (Sight(windows=[(0, 0, 1)]), "its window is none"),
        (Sight(windows=[(0, 1, -1)]), "its window is none"),
        (Sight(jumps=[(1, 4), (1, 5)]), "its positions are of tokens"),
        (Sight(jumps=[(1, -4)]), "its positions are of tokens"),
        (Sight(masks=[(1, [(0, 1)])]), "its masks are no ranges"),
        (Sight(masks=[(1, [])]), "its masks are no ranges"),
        (Sight(gone=[(0, 2)]), "its pages are no ranges"),
    ],
)
def test_what_no_tokens_can_see_is_damage(saved: SavedContexts, wrong: Sight, says: str):
    """Manifests come from elsewhere, too, and what is in them goes to the device."""
    write(saved, "a", sight=wrong)
    with pytest.raises(InvalidInput, match=f"`a` is damaged: {says}"):
        saved.read("ann", "m", "a")


def test_a_damaged_blob_is_named(saved: SavedContexts, tmp_path: Path):
    manifest = write(saved, "a", b"abcdef")
    (next(tmp_path.rglob("kv-*"))).write_bytes(b"abcdeX")
    with pytest.raises(InvalidInput, match="`a` is damaged: the checksum of its KV"):
        saved.read_blob("ann", "m", manifest)
