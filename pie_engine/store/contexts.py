"""Saved contexts: files below the data folder, one manifest and one blob of KV for each name of a user and a model.

    contexts/USER/MODEL/NAME.json       the manifest: tokens, what was said, model, checksums
    contexts/USER/MODEL/kv-ID.safetensors

A manifest is renamed into place after its blob is on the disk, so a name always has all of the old or all of the new
content, also after a crash or a loss of power. What a crash leaves behind is removed later.
"""

from __future__ import annotations

import difflib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote, unquote

import msgspec
from msgspec import UNSET

from pie_engine.errors import InvalidInput, LimitExceeded, NotFound
from pie_engine.protocol.sight import Sight
from pie_engine.store.manifest import FORMAT, PLAIN_FORMAT, Manifest, checksum_of, decode_manifest

MAX_NAME_BYTES = 64
MIB = 1 << 20
_HINT = "delete it and save it again"
_ORPHANED_AFTER_S = 3600.0
"""A younger blob without a manifest may be about to get one."""


def check_name(name: str) -> None:
    """Raises `InvalidInput`: a name becomes a file name."""
    if not name or len(name.encode()) > MAX_NAME_BYTES or not name.isprintable():
        raise InvalidInput(
            f"`{name}` cannot be the name of a saved context",
            hint=f"use 1 to {MAX_NAME_BYTES} printable characters (bytes of UTF-8)",
        )


class AlreadyThere(InvalidInput):
    """The name is taken."""


class Arrived(NamedTuple):
    """A context that came as a file: its KV is in `blob`, on the disk and as its manifest says."""

    manifest: Manifest
    blob: Path


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
            raise self._missing(user, name, model) from None
        return _decoded(name, data)

    def read_blob(self, user: str, model: str, manifest: Manifest) -> bytes:
        """The KV. Raises `NotFound` when the name has been deleted or replaced, `InvalidInput` when it is damaged."""
        with self.open_blob(user, model, manifest) as file:
            data = file.read()
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
        sight: Sight | None = None,
        meta: str,
        adapter: str = "",
        adapter_id: str = "",
        quota_bytes: int,
    ) -> Manifest:
        """Save under `name`, in place of what was there. Raises `LimitExceeded` (`disk_limit`) with the numbers."""
        check_name(name)
        room = self._room(user, model)
        room.mkdir(parents=True, exist_ok=True)
        path = self._manifest_path(user, model, name)
        replaced = _decoded_or_none(path)
        self.check_quota(user, model, name, len(blob), quota_bytes)
        manifest = Manifest(
            format=PLAIN_FORMAT if sight is None else FORMAT,
            name=name,
            model_id=model_id,
            page_size=page_size,
            tokens=list(tokens),
            adapter=adapter,
            adapter_id=adapter_id,
            meta=meta,
            sight=UNSET if sight is None else sight,
            blob=f"kv-{secrets.token_hex(8)}.safetensors",
            blob_bytes=len(blob),
            blob_checksum=checksum_of(blob),
            saved_at=self._clock(),
        ).sealed()
        try:
            _write_durably(room / manifest.blob, blob)
        except OSError as error:
            raise disk_full(name, len(blob), error) from error
        self._write_manifest(path, manifest)
        self._remove_blob(room, replaced)
        self._remove_orphans(room)
        return manifest

    def adopt(
        self, user: str, model: str, arrived: Arrived, *, name: str = "", replace: bool = False, quota_bytes: int
    ) -> Manifest:
        """Keep what came as a file under `name` instead of its own. Its KV is in a file that `partial` named.

        Raises `AlreadyThere` unless it may `replace`, and `LimitExceeded` (`disk_limit`).
        """
        name = name or arrived.manifest.name
        check_name(name)
        room, path = self._room(user, model), self._manifest_path(user, model, name)
        if path.exists() and not replace:
            raise AlreadyThere(
                f"a context is saved as `{name}` with model {model} already",
                hint="give it another name with `--name`, or replace it with `--replace`",
            )
        self.check_quota(user, model, name, arrived.manifest.blob_bytes, quota_bytes)
        replaced = _decoded_or_none(path)
        blob = f"kv-{secrets.token_hex(8)}.safetensors"
        manifest = msgspec.structs.replace(arrived.manifest, name=name, blob=blob).sealed()
        arrived.blob.replace(room / blob)
        self._write_manifest(path, manifest)
        self._remove_blob(room, replaced)
        return manifest

    def partial(self, user: str, model: str) -> Path:
        """A new file for KV that is on its way. What nobody takes away is removed later, like what a crash leaves."""
        room = self._room(user, model)
        room.mkdir(parents=True, exist_ok=True)
        return room / f"{secrets.token_hex(8)}.partial"

    def open_blob(self, user: str, model: str, manifest: Manifest) -> BinaryIO:
        """The KV, unchecked. Raises `NotFound` when the name has been deleted or replaced."""
        try:
            return (self._room(user, model) / manifest.blob).open("rb")
        except FileNotFoundError:
            raise NotFound(f"the KV of saved context `{manifest.name}` is gone") from None

    def models(self, user: str) -> Sequence[str]:
        """Those with which this user has saved something."""
        folders = self._room(user, "").parent.glob("m*")
        return sorted(unquote(folder.name[1:]) for folder in folders if any(folder.glob("*.json")))

    def delete(self, user: str, model: str, name: str) -> None:
        """Contexts that were opened from it live on. Raises `NotFound`."""
        check_name(name)
        path = self._manifest_path(user, model, name)
        deleted = _decoded_or_none(path)
        try:
            path.unlink()
        except FileNotFoundError:
            raise self._missing(user, name, model) from None
        self._remove_blob(path.parent, deleted)

    def list(self, user: str, model: str) -> list[Manifest]:
        """By name. What cannot be read is left out; opening it says so."""
        return [found for found in self.scan(user, model).values() if isinstance(found, Manifest)]

    def scan(self, user: str, model: str) -> dict[str, Manifest | InvalidInput]:
        """By name; where a manifest is damaged or of another format, why it cannot be read."""
        found: dict[str, Manifest | InvalidInput] = {}
        for path in self._room(user, model).glob("*.json"):
            name = unquote(path.stem)
            try:
                found[name] = _decoded(name, path.read_bytes())
            except InvalidInput as error:
                found[name] = error
            except FileNotFoundError:
                continue
        return dict(sorted(found.items()))

    def _write_manifest(self, path: Path, manifest: Manifest) -> None:
        """Its blob is there."""
        try:
            _write_durably(path, msgspec.json.encode(manifest))
        except OSError as error:
            (path.parent / manifest.blob).unlink(missing_ok=True)
            raise disk_full(manifest.name, manifest.blob_bytes, error) from error

    def check_quota(self, user: str, model: str, name: str, num_bytes: int, quota_bytes: int) -> None:
        """Raises `LimitExceeded` (`disk_limit`) with the numbers when so much more as `name` is too much."""
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

    def _missing(self, user: str, name: str, model: str) -> NotFound:
        """Says with which model it is saved, or the name that is nearest."""
        rooms = self._room(user, model).parent
        others = sorted(unquote(path.parent.name[1:]) for path in rooms.glob(f"m*/{quote(name, safe='')}.json"))
        near = difflib.get_close_matches(
            name, [unquote(path.stem) for path in self._room(user, model).glob("*.json")], n=1
        )
        if others:
            hint = f"it is saved with model {', '.join(others)}"
        elif near:
            hint = f"did you mean `{near[0]}`?"
        else:
            hint = "`pie context list` shows those that there are"
        return NotFound(f"no context is saved as `{name}` with model {model}", hint=hint)

    def _room(self, user: str, model: str) -> Path:
        # The letter keeps `.` and `..` from being names.
        return self._folder / f"u{quote(user, safe='')}" / f"m{quote(model, safe='')}"

    def _manifest_path(self, user: str, model: str, name: str) -> Path:
        return self._room(user, model) / f"{quote(name, safe='')}.json"


def _decoded(name: str, data: bytes) -> Manifest:
    return decode_manifest(f"saved context `{name}`", data, hint=_HINT)


def _decoded_or_none(path: Path) -> Manifest | None:
    try:
        return _decoded(path.name, path.read_bytes())
    except (FileNotFoundError, InvalidInput):
        return None


def _damaged(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"saved context `{name}` is damaged: {why}", hint=_HINT)


def disk_full(name: str, num_bytes: int, error: OSError) -> LimitExceeded:
    return LimitExceeded.of(
        "disk_limit", f"cannot save `{name}` ({num_bytes // MIB} MiB): {error.strerror}", hint="free some disk"
    )


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
