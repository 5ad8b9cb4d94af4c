"""Saved contexts: files below the data folder, one manifest and one blob of KV for each name of a user and a model.

    contexts/USER/MODEL/NAME.json       the manifest: tokens, what was said, model, checksums
    contexts/USER/MODEL/kv-ID.safetensors

A manifest is renamed into place after its blob is on the disk, so a name always has all of the old or all of the new
content, also after a crash or a loss of power. What a crash leaves behind is removed later.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

import msgspec

from pie_engine.errors import InvalidInput, LimitExceeded, NotFound

FORMAT = 1
MAX_NAME_BYTES = 64
MIB = 1 << 20
_ORPHANED_AFTER_S = 3600.0
"""A younger blob without a manifest may be about to get one."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a saved context is; `checksum` is of all other fields, `blob_checksum` of the blob (BLAKE2b, hex)."""

    format: int = FORMAT
    name: str
    model_id: str
    page_size: int
    tokens: list[int]
    meta: str = ""
    """What the program wants back with it."""
    blob: str
    """File name of the KV, of all tokens."""
    blob_bytes: int
    blob_checksum: str
    saved_at: float
    """Seconds since the epoch."""
    checksum: str = ""

    def sealed(self) -> Manifest:
        return msgspec.structs.replace(self, checksum=checksum_of(msgspec.json.encode(_without_checksum(self))))

    @property
    def is_whole(self) -> bool:
        return self == self.sealed()


def _without_checksum(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, checksum="")


def checksum_of(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()


def check_name(name: str) -> None:
    """Raises `InvalidInput`: a name becomes a file name."""
    if not name or len(name.encode()) > MAX_NAME_BYTES or not name.isprintable():
        raise InvalidInput(
            f"`{name}` cannot be the name of a saved context",
            hint=f"use 1 to {MAX_NAME_BYTES} printable characters (bytes of UTF-8)",
        )


class SavedContexts:
    """All saved contexts of a daemon. Several processes may use one folder at the same time."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def read(self, user: str, model: str, name: str) -> Manifest:
        """Raises `NotFound`, and `InvalidInput` when it is damaged."""
        check_name(name)
        try:
            data = self._manifest_path(user, model, name).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"no context is saved as `{name}` with model {model}") from None
        return _decoded(name, data)

    def read_blob(self, user: str, model: str, manifest: Manifest) -> bytes:
        """The KV. Raises `NotFound` when the name has been deleted or replaced, `InvalidInput` when it is damaged."""
        try:
            data = (self._room(user, model) / manifest.blob).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"the KV of saved context `{manifest.name}` is gone") from None
        if len(data) != manifest.blob_bytes or checksum_of(data) != manifest.blob_checksum:
            raise _damaged(manifest.name, "the checksum of its KV differs")
        return data

    def write(
        self,
        user: str,
        model: str,
        name: str,
        blob: bytes,
        *,
        model_id: str,
        page_size: int,
        tokens: Sequence[int],
        meta: str,
        quota_bytes: int,
    ) -> Manifest:
        """Save under `name`, in place of what was there. Raises `LimitExceeded` (`disk_limit`) with the numbers."""
        check_name(name)
        room = self._room(user, model)
        room.mkdir(parents=True, exist_ok=True)
        path = self._manifest_path(user, model, name)
        replaced = _decoded_or_none(path)
        self._check_quota(user, model, name, len(blob), quota_bytes)
        manifest = Manifest(
            name=name,
            model_id=model_id,
            page_size=page_size,
            tokens=list(tokens),
            meta=meta,
            blob=f"kv-{secrets.token_hex(8)}.safetensors",
            blob_bytes=len(blob),
            blob_checksum=checksum_of(blob),
            saved_at=self._clock(),
        ).sealed()
        try:
            _write_durably(room / manifest.blob, blob)
            _write_durably(path, msgspec.json.encode(manifest))
        except OSError as error:
            (room / manifest.blob).unlink(missing_ok=True)
            raise LimitExceeded.of(
                "disk_limit", f"cannot save `{name}` ({len(blob) // MIB} MiB): {error.strerror}", hint="free some disk"
            ) from error
        self._remove_blob(room, replaced)
        self._remove_orphans(room)
        return manifest

    def delete(self, user: str, model: str, name: str) -> None:
        """Contexts that were opened from it live on. Raises `NotFound`."""
        check_name(name)
        path = self._manifest_path(user, model, name)
        deleted = _decoded_or_none(path)
        try:
            path.unlink()
        except FileNotFoundError:
            raise NotFound(f"no context is saved as `{name}` with model {model}") from None
        self._remove_blob(path.parent, deleted)

    def list(self, user: str, model: str) -> list[Manifest]:
        """By name. What is damaged is left out; opening it says so."""
        found = []
        for path in sorted(self._room(user, model).glob("*.json")):
            try:
                found.append(_decoded(path.name, path.read_bytes()))
            except (FileNotFoundError, InvalidInput):
                continue
        return sorted(found, key=lambda manifest: manifest.name)

    def _check_quota(self, user: str, model: str, name: str, num_bytes: int, quota_bytes: int) -> None:
        used = sum(manifest.blob_bytes for manifest in self.list(user, model) if manifest.name != name)
        if used + num_bytes > quota_bytes:
            raise LimitExceeded.of(
                "disk_limit",
                f"saving `{name}` takes {_mib(num_bytes)} MiB; contexts saved with model {model} have "
                f"{_mib(used)} of {_mib(quota_bytes)} MiB",
                hint="delete some, or raise `saved_contexts_mb` of the model in the configuration",
            )

    def _remove_blob(self, room: Path, manifest: Manifest | None) -> None:
        if manifest is not None:
            (room / manifest.blob).unlink(missing_ok=True)

    def _remove_orphans(self, room: Path) -> None:
        manifests = [_decoded_or_none(path) for path in room.glob("*.json")]
        named = {manifest.blob for manifest in manifests if manifest is not None}
        if None in manifests:
            return  # what the damaged one names is not known
        for path in [*room.glob("kv-*.safetensors"), *room.glob("*.partial")]:
            if path.name not in named and self._clock() - _changed_at(path) > _ORPHANED_AFTER_S:
                path.unlink(missing_ok=True)

    def _room(self, user: str, model: str) -> Path:
        # The letter keeps `.` and `..` from being names.
        return self._folder / f"u{quote(user, safe='')}" / f"m{quote(model, safe='')}"

    def _manifest_path(self, user: str, model: str, name: str) -> Path:
        return self._room(user, model) / f"{quote(name, safe='')}.json"


def _decoded(name: str, data: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise _damaged(name, str(error)) from error
    if manifest.format != FORMAT:
        raise InvalidInput(
            f"saved context `{name}` has format {manifest.format}; this version of Pie reads {FORMAT}",
            hint="delete it and save it again",
        )
    if not manifest.is_whole:
        raise _damaged(name, "the checksum of its manifest differs")
    return manifest


def _decoded_or_none(path: Path) -> Manifest | None:
    try:
        return _decoded(path.name, path.read_bytes())
    except (FileNotFoundError, InvalidInput):
        return None


def _damaged(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"saved context `{name}` is damaged: {why}", hint="delete it and save it again")


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / MIB:.1f}"


def _write_durably(path: Path, data: bytes) -> None:
    """All of it or nothing, under its name only when it is on the disk."""
    partial = path.with_name(f"{secrets.token_hex(8)}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        partial.unlink(missing_ok=True)
