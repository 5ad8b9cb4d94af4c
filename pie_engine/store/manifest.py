"""The manifest of a saved context: what it is, and checksums of that and of its KV."""

from __future__ import annotations

from hashlib import blake2b

import msgspec
from msgspec import UNSET, UnsetType

from pie_engine.errors import InvalidInput
from pie_engine.protocol.sight import Sight

FORMAT = 3
PLAIN_FORMAT = 2
"""Without `sight`: what earlier versions read, too, so it is what is written where there is nothing to say."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a saved context is; `checksum` is of all other fields, `blob_checksum` of the blob (BLAKE2b, hex)."""

    format: int = PLAIN_FORMAT
    name: str
    model_id: str
    page_size: int
    tokens: list[int]
    adapter: str = ""
    """Name of the adapter that it was computed with, and the digest of its files; empty: of none."""
    adapter_id: str = ""
    meta: str = ""
    """What the program wants back with it."""
    sight: Sight | UnsetType = UNSET
    """What its tokens see and where they stand; left out where that is everything before them."""
    blob: str
    """File name of the KV, of all tokens but those in pages that are gone."""
    blob_bytes: int
    blob_checksum: str
    saved_at: float
    """Seconds since the epoch."""
    checksum: str = ""

    @property
    def seen(self) -> Sight | None:
        """`sight`; None: everything."""
        return self.sight or None

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
        if found > FORMAT:
            raise InvalidInput(
                f"{what} was written by a later version of Pie: it has format {found}, this one reads up to {FORMAT}",
                hint="update Pie here, or save it again with this version",
            )
        if found < PLAIN_FORMAT:
            raise InvalidInput(
                f"{what} has format {found}; this version of Pie reads {PLAIN_FORMAT} to {FORMAT}", hint=hint
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{what} is damaged: {error}", hint=hint) from error
    if not manifest.is_whole:
        raise InvalidInput(f"{what} is damaged: the checksum of its manifest differs", hint=hint)
    fault = manifest.sight.fault(len(manifest.tokens), manifest.page_size) if manifest.sight else ""
    if fault:
        raise InvalidInput(f"{what} is damaged: {fault}", hint=hint)
    return manifest
