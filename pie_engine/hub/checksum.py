"""The checksums that a hub gives for its files: SHA-256 for large ones (Git LFS), the Git blob hash for the others.

A cached file has its checksum as its name, so what lies in the cache can be checked without the hub.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

_CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")


def kind_of(checksum: str) -> str:
    """`sha256`, `git` or empty for what is neither."""
    return "sha256" if _SHA256.fullmatch(checksum) else "git" if _GIT.fullmatch(checksum) else ""


def compute(path: Path, kind: str, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """The checksum of a file; `git` is SHA-1 over `blob SIZE\\0` and the content.

    https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    """
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()
