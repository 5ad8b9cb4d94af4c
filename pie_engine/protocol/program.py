"""A program on its way to the engine: manifest, bundle, signature."""

from __future__ import annotations

import csv
import hashlib
import re
from typing import Annotated, Literal

import msgspec

from pie_engine.config import MAX_ENDOWMENT

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Of a program."""
SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
"""Name of a secret, as of an environment variable."""
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
GUEST_PYTHON = (3, 14)
"""What the shared runtime runs."""

_DIST_INFO = ".dist-info/"
_METADATA = (f"{_DIST_INFO}METADATA", f"{_DIST_INFO}entry_points.txt")
_RECORD = f"{_DIST_INFO}RECORD"
"""Of a package: the files that came with it."""
_SPREAD = re.compile(r"^[^/]+\.data/(purelib|platlib)/")
TESTS_FOLDER = "tests"
"""What lies in one may be wrong on purpose."""

COMPONENT_FILE = "program.wasm"
"""The one file of a bundle that is a standalone component."""

PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
Credits = Annotated[float, msgspec.Meta(ge=0, le=MAX_ENDOWMENT)]


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[limits]` of pie.toml. None: the engine's own limit, which is also the largest that is granted."""

    memory_mb: Annotated[int, msgspec.Meta(gt=0)] | None = None
    cpu_s: PositiveFloat | None = None
    """CPU time between two host calls."""
    wall_s: PositiveFloat | None = None
    output_mb: PositiveFloat | None = None


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """pie.toml: `[program]` and `[limits]`."""

    name: str
    version: str = "0.0.0"
    runtime: Literal["python", "component"] = "python"
    entry: str = "main"
    """The module that holds `async def main`."""
    description: str = ""
    python: str = ">=3.11"
    """A version specifier that lets `GUEST_PYTHON` in."""
    secrets: tuple[str, ...] = ()
    """Names of the secrets that `runtime.secret` gives it."""
    launches: tuple[str, ...] = ()
    """Programs that it may launch as its children: `name`, in any version, or `name@version`."""
    dependencies: tuple[str, ...] = ()
    """Pure-Python packages that it needs, as pip writes them: `tabulate>=0.9`. They travel among its files."""
    endowment: Credits | None = None
    """Of a launch that names none; None: what the user's processes get."""
    limits: Limits = Limits()


class Bundle(msgspec.Struct, frozen=True, omit_defaults=True):
    """A program as it travels: the manifest and its files by POSIX path.

    Text files (UTF-8) in `files`; others in `blobs` (base64 in JSON). A standalone component is the one blob
    `program.wasm`.
    """

    manifest: Manifest
    files: dict[str, str] = {}
    blobs: dict[str, bytes] = {}

    def guest_files(self) -> tuple[dict[str, str], dict[str, bytes]]:
        """What a guest is handed as text, and what it sees as files.

        The first are modules, and what `importlib.metadata` reads of packages. Their licences are neither.
        """
        texts = {path: text for path, text in self.files.items() if path.endswith((".py", *_METADATA))}
        others = self.blobs | {path: text.encode() for path, text in self.files.items() if path not in texts}
        return texts, {path: content for path, content in others.items() if _DIST_INFO not in path}

    def own_modules(self) -> list[str]:
        """The modules that the program's author has written, without those of tests and of packages."""
        texts = (text for path, text in self.files.items() if path.endswith(_RECORD))
        brought = {_SPREAD.sub("", row[0]) for text in texts for row in csv.reader(text.splitlines()) if row}
        return [path for path in self.files if path not in brought and _is_module(path)]

    @property
    def digest(self) -> str:
        """blake2b-128 of the canonical form: an edited file is another program."""
        canonical = msgspec.json.encode(self, order="sorted")
        return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def is_named(reference: str, manifest: Manifest) -> bool:
    """Whether `name` or `name@version` means this one."""
    return reference in (manifest.name, f"{manifest.name}@{manifest.version}")


def _is_module(path: str) -> bool:
    """Whether an import statement can name it."""
    *folders, name = path.removesuffix(".py").split("/")
    return path.endswith(".py") and all(map(str.isidentifier, (*folders, name))) and TESTS_FOLDER not in folders


class Parameter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One parameter of `main`, as its JSON schema has it."""

    name: str
    schema: dict[str, object]
    required: bool = True
    default: object = None


class Signature(msgspec.Struct, frozen=True, omit_defaults=True):
    """The typed signature of `main`."""

    doc: str = ""
    parameters: list[Parameter] = []
    returns: dict[str, object] = {}
