"""From a program's bundle to a standalone component: once for each content, whoever asks and however often."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from pie_engine.builder.componentize import Progress
from pie_engine.builder.lock import locked, write_whole
from pie_engine.builder.record import Record, record_of, with_record
from pie_engine.builder.wasm import WasmError
from pie_engine.builder.writing import writing_to
from pie_engine.errors import InvalidProgram
from pie_engine.protocol.program import Bundle

UNUSED_DAYS = 30
_FORMAT = b"2"
"""Of the record and of the file names here: another one builds everything again."""


@dataclass(frozen=True)
class Built:
    """A component. `is_new`: it was built just now, by this process."""

    component: bytes
    record: Record
    is_new: bool


@dataclass(frozen=True)
class Made:
    """What a builder has made of a bundle: the component, what it knows of it, and the data files that go along."""

    component: bytes
    record: Record
    data: dict[str, bytes]


class Builder(Protocol):
    """One for each language."""

    def key(self) -> bytes | None:
        """Of everything but the bundle that a build depends on. None: its own tool knows what has changed. Raises
        `Unsupported` when a tool is missing."""

    def make(self, bundle: Bundle, folder: Path, progress: Progress) -> Made:
        """Build it in `folder`, which is removed afterwards. Raises `InvalidProgram`."""


def build(builder: Builder, bundle: Bundle, cache: Path, progress: Progress) -> Built:
    """The component of `bundle`, from `cache` or built into it. Safe when several processes do this at once, and when
    they are ended in the middle.

    Raises `InvalidProgram`, `Unsupported` for a missing tool, or `InvalidConfig` for a `cache` that cannot be written.
    """
    folder = cache / "builds"
    rest = builder.key()
    if rest is None:
        return _built_anew(builder, bundle, progress)
    key = hashlib.blake2b(_FORMAT + rest + bundle.digest.encode(), digest_size=16).hexdigest()
    path = folder / f"{key}.wasm"
    known = _known(path, key)
    if known is not None:
        return known
    with writing_to(cache):
        # A component is run with the rights of whoever runs it, so nobody else may write there.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), lambda: progress("waiting for another process to build it", 0.0)):
            return _known(path, key) or _built(builder, bundle, path, progress)


def _known(path: Path, key: str) -> Built | None:
    try:
        component = path.read_bytes()
        record = record_of(component)
    except (OSError, WasmError, InvalidProgram):
        return None
    if record is None or record.build != key:
        return None
    with suppress(OSError):  # a folder that can only be read is as good
        path.touch()
    return Built(component, record, is_new=False)


def _built(builder: Builder, bundle: Bundle, path: Path, progress: Progress) -> Built:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        made = builder.make(bundle, Path(folder), progress)
    record = msgspec.structs.replace(made.record, build=path.stem)
    component = with_record(made.component, record, made.data)
    write_whole(path, component)
    remove_unused(path.parent)
    return Built(component, record, is_new=True)


def _built_anew(builder: Builder, bundle: Bundle, progress: Progress) -> Built:
    with tempfile.TemporaryDirectory(prefix="pie-build-") as folder:
        made = builder.make(bundle, Path(folder), progress)
    return Built(with_record(made.component, made.record, made.data), made.record, is_new=True)


def remove_unused(folder: Path) -> None:
    """What nobody has used for a while, and what builds that were killed have left."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for path in folder.glob("*"):
        with suppress(OSError):
            if path.stat().st_mtime >= oldest:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
