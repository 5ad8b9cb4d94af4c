"""A saved context as one file that travels: safetensors with the KV, and the manifest in its metadata.

Any reader of safetensors opens it (https://huggingface.co/docs/safetensors). The manifest is that of `store.manifest`;
its checksum is of all its fields, and `blob_checksum` of the file as it were without metadata, with a header written in
one fixed way. Files are read and written piece by piece, since KV can be larger than memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import msgspec

from pie_engine.errors import InvalidInput
from pie_engine.store.contexts import Arrived, SavedContexts, disk_full
from pie_engine.store.manifest import Manifest, decode_manifest

METADATA = "__metadata__"
KEY = "pie_context"
PIECE_BYTES = 1 << 20
MAX_HEADER_BYTES = 64 << 20
"""The tokens are in it, too: 64 MiB are some millions of them."""
_LENGTH = struct.Struct("<Q")


def export(saved: SavedContexts, user: str, model: str, name: str) -> tuple[int, Iterator[bytes]]:
    """Bytes that the file has, and those bytes. Raises `NotFound`, and `InvalidInput` when it is damaged."""
    manifest = saved.read(user, model, name)
    tensors, checksum = _checked(saved.open_blob(user, model, manifest), manifest)
    plain = _header(tensors)
    blob = saved.open_blob(user, model, manifest)
    data_start = _LENGTH.size + _LENGTH.unpack(blob.read(_LENGTH.size))[0]
    num_data = manifest.blob_bytes - data_start
    manifest = msgspec.structs.replace(manifest, blob="", blob_bytes=len(plain) + num_data, blob_checksum=checksum)
    metadata = {KEY: msgspec.json.encode(manifest.sealed()).decode()}
    header = _header({METADATA: metadata, **tensors})
    blob.seek(data_start)
    return len(header) + num_data, _pieces(header, blob)


def _pieces(header: bytes, blob: BinaryIO) -> Iterator[bytes]:
    with blob:
        yield header
        while piece := blob.read(PIECE_BYTES):
            yield piece


def _checked(blob: BinaryIO, manifest: Manifest) -> tuple[dict[str, object], str]:
    """The tensors of a blob that is whole, and its checksum with the header as it is written here."""
    with blob:
        first = blob.read(_LENGTH.size)
        num_bytes = _LENGTH.unpack(first)[0] if len(first) == _LENGTH.size else 0
        raw = blob.read(min(num_bytes, manifest.blob_bytes))
        as_saved = blake2b(first + raw, digest_size=32)
        try:
            tensors = _tensors(raw)
        except InvalidInput as error:
            raise _damaged(f"saved context `{manifest.name}`", "the header of its KV cannot be read") from error
        as_sent = blake2b(_header(tensors), digest_size=32)
        while piece := blob.read(PIECE_BYTES):
            as_saved.update(piece)
            as_sent.update(piece)
        if blob.tell() != manifest.blob_bytes or as_saved.hexdigest() != manifest.blob_checksum:
            raise _damaged(f"saved context `{manifest.name}`", "the checksum of its KV differs")
    return tensors, as_sent.hexdigest()


class Import:
    """A file on its way in: `take` its pieces, then `finish`; `drop` it in any case, which is nothing after `finish`.

    Refuses with `InvalidInput` what is no such file, is damaged, of another format, or of another model.
    """

    def __init__(
        self, saved: SavedContexts, user: str, model: str, *, model_id: str, page_size: int, quota_bytes: int
    ) -> None:
        """`model_id`, `page_size`: of the model as it is loaded now."""
        self._saved, self._user, self._model = saved, user, model
        self._model_id, self._page_size, self._quota_bytes = model_id, page_size, quota_bytes
        self._head = bytearray()
        self._manifest: Manifest | None = None
        self._partial: Path | None = None
        self._file: BinaryIO | None = None
        self._checksum = blake2b(digest_size=32)
        self._num_bytes = 0

    def take(self, piece: bytes) -> None:
        """The next bytes of the file; they are on the disk then. Wrong files are refused at once."""
        if self._manifest is None:
            self._head += piece
            piece = self._begin()
        if self._manifest is not None:
            self._write(piece)

    def finish(self, name: str = "", *, replace: bool = False) -> Manifest:
        """It is there. `name` instead of the one that it was saved as; see `SavedContexts.adopt`."""
        manifest, file, partial = self._manifest, self._file, self._partial
        if manifest is None or file is None or partial is None:
            raise _no_context("it ends in its header" if self._head else "it is empty")
        if self._num_bytes != manifest.blob_bytes:
            raise _damaged("the file", f"it ends after {self._num_bytes} of {manifest.blob_bytes} bytes of KV")
        if self._checksum.hexdigest() != manifest.blob_checksum:
            raise _damaged("the file", "the checksum of its KV differs")
        try:
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise disk_full(manifest.name, manifest.blob_bytes, error) from error
        arrived = Arrived(manifest, partial)
        return self._saved.adopt(
            self._user, self._model, arrived, name=name, replace=replace, quota_bytes=self._quota_bytes
        )

    def drop(self) -> None:
        """Nothing of it stays on the way."""
        if self._file is not None:
            self._file.close()
        if self._partial is not None:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _begin(self) -> bytes:
        """Once the header is there: check it, and return what follows it."""
        if len(self._head) < _LENGTH.size:
            return b""
        (num_bytes,) = _LENGTH.unpack_from(self._head)
        if num_bytes > MAX_HEADER_BYTES:
            raise _no_context("it does not begin with a header of safetensors")
        end = _LENGTH.size + num_bytes
        if len(self._head) < end:
            return b""
        tensors = _tensors(bytes(self._head[_LENGTH.size : end]))
        manifest = _manifest_of(tensors.pop(METADATA, None))
        self._check(manifest)
        rest = bytes(self._head[end:])
        self._head.clear()
        self._saved.check_quota(self._user, self._model, manifest.name, manifest.blob_bytes, self._quota_bytes)
        self._manifest = manifest
        self._partial = self._saved.partial(self._user, self._model)
        self._file = self._partial.open("wb")
        self._write(_header(tensors))
        return rest

    def _check(self, manifest: Manifest) -> None:
        if manifest.model_id != self._model_id:
            raise InvalidInput(
                f"the file belongs to another model: it was saved with {manifest.model_id}, and {self._model} is "
                f"{self._model_id}",
                hint="import it where the same weights are loaded with the same dtype",
            )
        if manifest.page_size != self._page_size:
            raise InvalidInput(
                f"the file has KV pages of {manifest.page_size} tokens, {self._model} has pages of {self._page_size}",
                hint=f"set `page_size = {manifest.page_size}` of the model in the configuration",
            )

    def _write(self, piece: bytes) -> None:
        assert self._file is not None
        assert self._manifest is not None
        self._num_bytes += len(piece)
        if self._num_bytes > self._manifest.blob_bytes:
            raise _damaged("the file", f"it goes on after its {self._manifest.blob_bytes} bytes of KV")
        self._checksum.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise disk_full(self._manifest.name, self._manifest.blob_bytes, error) from error


def _tensors(raw: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise _no_context("it does not begin with a header of safetensors") from error


def _manifest_of(metadata: object) -> Manifest:
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise _no_context("its metadata has no manifest")
    return decode_manifest("the file", metadata[KEY].encode(), hint="export it again")


def _header(tensors: dict[str, object]) -> bytes:
    """As safetensors wants it: its length, then JSON filled up with spaces."""
    encoded = msgspec.json.encode(tensors)
    encoded += b" " * (-len(encoded) % _LENGTH.size)
    return _LENGTH.pack(len(encoded)) + encoded


def _no_context(why: str) -> InvalidInput:
    return InvalidInput(f"the file is no saved context: {why}", hint="`pie context export` writes one")


def _damaged(what: str, why: str) -> InvalidInput:
    return InvalidInput(f"{what} is damaged: {why}", hint="export it again")
