"""A bundle as one file: a zip archive in which the same program is the same bytes, on any machine and at any time.

Sorted by path, without times, users or compression (whose output depends on the version of zlib).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import msgspec

from pie_engine.errors import InvalidProgram
from pie_engine.protocol.program import Bundle, Manifest

SUFFIX = ".pie"
MANIFEST = "pie.json"
"""The manifest as JSON, before the files, which lie below `files/`."""
FILES = "files/"
_MADE = (1980, 1, 1, 0, 0, 0)
"""The earliest time that the format knows."""
_UNIX = 3
_MODE = 0o100644


def archive_of(bundle: Bundle) -> bytes:
    """The bundle as an archive."""
    manifest = msgspec.json.format(msgspec.json.encode(bundle.manifest, order="sorted"), indent=2)
    files = {path: text.encode() for path, text in bundle.files.items()} | bundle.blobs
    return zipped({MANIFEST: manifest, **{FILES + path: files[path] for path in sorted(files)}})


def bundle_of(archive: bytes, name: str) -> Bundle:
    """What `archive_of` was given. Raises `InvalidProgram`; `name` is what the archive is called."""
    try:
        parts = unzipped(archive)
        manifest = msgspec.json.decode(parts.pop(MANIFEST), type=Manifest)
    except KeyError:
        raise InvalidProgram(f"{name} has no {MANIFEST}: it is no bundle of `pie build`") from None
    except msgspec.ValidationError as error:
        hint = "update Pie, or build it again"
        raise InvalidProgram(f"{name} was built by another version of Pie: {error}", hint=hint) from error
    except (zipfile.BadZipFile, msgspec.DecodeError) as error:
        raise InvalidProgram(f"{name} is damaged: {error}", hint="build it again") from error
    files: dict[str, str] = {}
    blobs: dict[str, bytes] = {}
    for path, content in parts.items():
        try:
            files[path.removeprefix(FILES)] = content.decode()
        except UnicodeDecodeError:
            blobs[path.removeprefix(FILES)] = content
    return Bundle(manifest, files, blobs)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """In the order given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, _MADE)
            entry.create_system, entry.external_attr = _UNIX, _MODE << 16
            archive.writestr(entry, content, zipfile.ZIP_STORED)
    return buffer.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    """Raises `zipfile.BadZipFile`."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
