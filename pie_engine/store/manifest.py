"""The manifest of a saved context: what it is, and checksums of that and of its KV."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from pie_engine.errors import InvalidInput

FORMAT = 2


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a saved context is; `checksum` is of all other fields, `blob_checksum` of the blob (BLAKE2b, hex)."""

    format: int = FORMAT
    name: str
    model_id: str
    page_size: int
    tokens: list[int]
    adapter: str = ""
    """Name of the adapter that it was computed with, and the digest of its files; empty: of none."""
    adapter_id: str = ""
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


class _Format(msgspec.Struct):
    format: int


def _without_checksum(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, checksum="")


def checksum_of(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()


def decode_manifest(what: str, data: bytes, *, hint: str) -> Manifest:
    """Raises `InvalidInput`, saying what is wrong with `what`, when it is damaged or of another format."""
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise InvalidInput(f"{what} has format {found}; this version of Pie reads {FORMAT}", hint=hint)
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{what} is damaged: {error}", hint=hint) from error
    if not manifest.is_whole:
        raise InvalidInput(f"{what} is damaged: the checksum of its manifest differs", hint=hint)
    return manifest
