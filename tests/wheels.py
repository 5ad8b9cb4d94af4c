"""Wheels for tests: a few files in a zip, as pip wants them. Nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def make_wheel(
    folder: Path,
    name: str,
    files: Mapping[str, str | bytes],
    *,
    version: str = "1.0",
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    requires_python: str = "",
) -> Path:
    """`NAME-VERSION-TAG.whl` in `folder`; `files` by their path in it."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {each}" for each in requires]
    metadata += [f"Requires-Python: {requires_python}"] if requires_python else []
    pure = str(tag.endswith("none-any")).lower()
    contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    contents[f"{info}/METADATA"] = ("\n".join(metadata) + "\n\nA long story.\n").encode()
    contents[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: {pure}\nTag: {tag}\n".encode()
    contents[f"{info}/RECORD"] = _record(contents, info).encode()
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for entry, content in contents.items():
            wheel.writestr(entry, content)
    return path


def _record(contents: Mapping[str, bytes], info: str) -> str:
    lines = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in contents.items()]
    return "\n".join([*lines, f"{info}/RECORD,,"]) + "\n"


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
