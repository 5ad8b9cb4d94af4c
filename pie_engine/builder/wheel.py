"""A wheel's files, as a program takes them along: its modules, its data, and of its metadata what has to be there.

https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from email.parser import BytesHeaderParser
from pathlib import Path

from pie_engine.builder.lockfile import Package
from pie_engine.builder.record import DIST_INFO
from pie_engine.errors import InvalidProgram

_NATIVE = re.compile(r"\.(so|pyd|dylib|dll)(\.[0-9.]+)?$")
_KEPT_METADATA = re.compile(r"METADATA|RECORD|entry_points\.txt|licenses/.*|(LICEN[SC]E|COPYING|NOTICE)[^/]*")
_LEFT_OUT = (".pyc", ".pyi", "/py.typed", "/")
_SPREAD = re.compile(r"[^/]+\.data/(purelib|platlib)/")
"""Modules may lie there too; the other folders of `.data` hold scripts and headers."""


def package_of(wheel: Path) -> Package:
    """Name, version and hash."""
    metadata = BytesHeaderParser().parsebytes(_metadata(wheel))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    name = re.sub(r"[-_.]+", "-", metadata["Name"]).lower()  # PEP 503
    return Package(name, metadata["Version"], [f"sha256:{digest}"])


def files_of(wheel: Path) -> dict[str, bytes]:
    """What goes along, by path. Raises `InvalidProgram` for native code, which a pure wheel should not hold."""
    files = {}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            path = _SPREAD.sub("", entry)
            if _NATIVE.search(path):
                raise InvalidProgram(
                    f"`{wheel.name.partition('-')[0]}` holds native code ({path}), which cannot run in the sandbox",
                    hint="choose a package that is pure Python",
                )
            if _is_kept(path):
                files[path] = _without_story(path, archive.read(entry))
    return files


def _metadata(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        found = next((name for name in archive.namelist() if name.endswith(f"{DIST_INFO}/METADATA")), None)
        if found is None:
            raise InvalidProgram(f"{wheel.name} is no wheel: it has no METADATA")
        return archive.read(found)


def _is_kept(path: str) -> bool:
    _, is_metadata, rest = path.partition(f"{DIST_INFO}/")
    if is_metadata:
        return bool(_KEPT_METADATA.fullmatch(rest))
    return not path.endswith(_LEFT_OUT) and ".data/" not in path and ".." not in path.split("/")


def _without_story(path: str, content: bytes) -> bytes:
    """Behind the headers METADATA holds the README."""
    return content.partition(b"\n\n")[0] + b"\n" if path.endswith(f"{DIST_INFO}/METADATA") else content
