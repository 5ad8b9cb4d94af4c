"""`pie.lock`: which packages a program travels with, each by version and hash. Lies beside pie.toml."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import tomli

from pie_engine.errors import InvalidProgram
from pie_engine.protocol.program import GUEST_PYTHON

LOCK_FILE = "pie.lock"
FORMAT = 1
_HEAD = "# Written by Pie, from `dependencies` in pie.toml. Commit it; `pie build --upgrade` takes newer packages.\n"


class Package(msgspec.Struct, frozen=True):
    name: str
    version: str
    hashes: list[str]
    """Like `sha256:…`, of the wheels that may be taken."""


class Lock(msgspec.Struct, frozen=True):
    requires: list[str]
    """What pie.toml asked for; when that changes, the packages are chosen anew."""
    package: list[Package] = []
    format: int = FORMAT
    python: str = ".".join(map(str, GUEST_PYTHON))

    def fits(self, requires: Sequence[str]) -> bool:
        return self.python == Lock([]).python and sorted(self.requires) == sorted(requires)


def read_lock(root: Path) -> Lock | None:
    """None: there is none. Raises `InvalidProgram` for one that cannot be used."""
    path = root / LOCK_FILE
    hint = f"remove it, and `pie build` writes a new {LOCK_FILE}"
    try:
        lock = msgspec.convert(tomli.loads(path.read_text("utf-8")), Lock)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidProgram(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomli.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidProgram(f"{path}: {error}", hint=hint) from error
    if lock.format != FORMAT:
        raise InvalidProgram(f"{path} was written by another version of Pie (format {lock.format})", hint=hint)
    return lock


def text_of(lock: Lock) -> str:
    """TOML, the same for the same packages: sorted by name."""
    requires = ", ".join(map(_quoted, sorted(lock.requires)))
    parts = [_HEAD, f"format = {lock.format}\npython = {_quoted(lock.python)}\nrequires = [{requires}]\n"]
    for package in sorted(lock.package, key=lambda package: package.name):
        hashes = ", ".join(map(_quoted, sorted(package.hashes)))
        name, version = _quoted(package.name), _quoted(package.version)
        parts.append(f"\n[[package]]\nname = {name}\nversion = {version}\nhashes = [{hashes}]\n")
    return "".join(parts)


def _quoted(text: str) -> str:
    """A basic string of TOML, which has JSON's escapes."""
    return json.dumps(text, ensure_ascii=False)
