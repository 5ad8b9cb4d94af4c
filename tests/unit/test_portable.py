"""Saved contexts as single files: they come back whole, or are refused with the reason."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from pie_engine.errors import InvalidInput, LimitExceeded, NotFound
from pie_engine.store import portable
from pie_engine.store.contexts import MIB, AlreadyThere, SavedContexts
from pie_engine.store.manifest import Manifest
from pie_engine.store.portable import Import, export

KV = {"keys": np.arange(48, dtype=np.float32).reshape(2, 4, 6), "values": np.ones((2, 24), np.float32)}


@pytest.fixture
def saved(tmp_path: Path) -> SavedContexts:
    return SavedContexts(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> SavedContexts:
    return SavedContexts(tmp_path / "there")


@pytest.fixture
def file(saved: SavedContexts) -> bytes:
    saved.write("ann", "m", "tale", save(KV), model_id="id", page_size=4, tokens=[1, 2, 3, 4, 5], meta="{}",
                quota_bytes=MIB)  # fmt: skip
    return exported(saved)


def exported(saved: SavedContexts, name: str = "tale", user: str = "ann", model: str = "m") -> bytes:
    size, pieces = export(saved, user, model, name)
    data = b"".join(pieces)
    assert len(data) == size
    return data


def take_in(
    saved: SavedContexts,
    data: bytes,
    *,
    name: str = "",
    replace: bool = False,
    model_id: str = "id",
    page_size: int = 4,
    piece: int = 7,
    quota: int = MIB,
) -> Manifest:
    incoming = Import(saved, "bob", "m2", model_id=model_id, page_size=page_size, quota_bytes=quota)
    try:
        for start in range(0, len(data), piece):
            incoming.take(data[start : start + piece])
        return incoming.finish(name, replace=replace)
    finally:
        incoming.drop()
        assert not list(saved._folder.rglob("*.partial"))


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_file_brings_a_context_elsewhere(saved: SavedContexts, there: SavedContexts, file: bytes, piece: int):
    manifest = take_in(there, file, piece=piece)
    here = saved.read("ann", "m", "tale")
    assert there.read("bob", "m2", "tale") == manifest
    assert (manifest.tokens, manifest.meta, manifest.saved_at) == (here.tokens, here.meta, here.saved_at)
    read = load(there.read_blob("bob", "m2", manifest))
    assert all(np.array_equal(read[name], KV[name]) for name in KV)
    assert exported(there, user="bob", model="m2") == file


def test_a_file_is_safetensors(file: bytes):
    read = load(file)
    assert all(np.array_equal(read[name], KV[name]) for name in KV)


def test_a_file_is_read_and_written_in_pieces(saved: SavedContexts, file: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(portable, "PIECE_BYTES", 64)
    _, pieces = export(saved, "ann", "m", "tale")
    assert [len(piece) for piece in pieces][1:] == [64] * 6


def test_another_name_and_a_name_that_is_taken(there: SavedContexts, file: bytes):
    take_in(there, file)
    take_in(there, file, name="other")
    with pytest.raises(AlreadyThere, match="`tale` with model m2 already"):
        take_in(there, file)
    take_in(there, file, replace=True)
    assert [manifest.name for manifest in there.list("bob", "m2")] == ["other", "tale"]
    assert len(list(there._folder.rglob("kv-*"))) == 2
    with pytest.raises(InvalidInput, match="cannot be the name"):
        take_in(there, file, name="x" * 65)


def test_a_name_that_is_not_there(saved: SavedContexts):
    with pytest.raises(NotFound):
        export(saved, "ann", "m", "tale")


def test_the_quota_holds(there: SavedContexts, file: bytes):
    with pytest.raises(LimitExceeded, match="MiB"):
        take_in(there, file, quota=300)
    assert there.list("bob", "m2") == []


@pytest.mark.parametrize("length", [0, 3, 20, -1, -200])
def test_a_file_that_is_cut_is_refused(there: SavedContexts, file: bytes, length: int):
    with pytest.raises(InvalidInput, match=r"is no saved context|is damaged: it ends after"):
        take_in(there, file[:length])
    assert there.list("bob", "m2") == []


def test_a_file_with_something_after_it_is_refused(there: SavedContexts, file: bytes):
    with pytest.raises(InvalidInput, match="it goes on after"):
        take_in(there, file + b"x")


def test_every_byte_counts(there: SavedContexts, file: bytes):
    """Of the KV and of what the header says; JSON has blanks that mean nothing."""
    (num_bytes,) = struct.unpack_from("<Q", file)
    for place in (*range(8, 8 + num_bytes, 5), *range(8 + num_bytes, len(file), 50)):
        damaged = bytearray(file)
        damaged[place] ^= 1
        if file[place : place + 1] == b" ":
            continue
        with pytest.raises(InvalidInput, match=r"damaged|no saved context|another model|pages of|format"):
            take_in(there, bytes(damaged), piece=1 << 20)
    assert there.list("bob", "m2") == []


@pytest.mark.parametrize("data", [b"hello", b"\xff" * 64, struct.pack("<Q", 4) + b"null", save(KV)])
def test_other_files_are_refused(there: SavedContexts, data: bytes):
    with pytest.raises(InvalidInput, match="is no saved context"):
        take_in(there, data)


def test_another_model_page_size_or_format_is_refused(there: SavedContexts, file: bytes):
    with pytest.raises(InvalidInput, match="saved with id, and m2 is id-2"):
        take_in(there, file, model_id="id-2")
    with pytest.raises(InvalidInput, match="pages of 4 tokens, m2 has pages of 16"):
        take_in(there, file, page_size=16)
    (num_bytes,) = struct.unpack_from("<Q", file)
    header = json.loads(file[8 : 8 + num_bytes])
    manifest = json.loads(header["__metadata__"]["pie_context"])
    header["__metadata__"]["pie_context"] = json.dumps({"format": 9, "name": manifest["name"]})
    encoded = json.dumps(header).encode()
    with pytest.raises(InvalidInput, match="has format 9"):
        take_in(there, struct.pack("<Q", len(encoded)) + encoded + file[8 + num_bytes :])


def test_damaged_kv_is_not_exported(saved: SavedContexts, file: bytes):
    blob = next(saved._folder.rglob("kv-*"))
    data = blob.read_bytes()
    for damaged in (data[:-1], data[:-1] + b"x", b"", b"\xff" * len(data)):
        blob.write_bytes(damaged)
        with pytest.raises(InvalidInput, match="`tale` is damaged"):
            export(saved, "ann", "m", "tale")
