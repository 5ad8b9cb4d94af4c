"""The shared Python runtime: one component with CPython and the SDK in it, built once per version and then loaded in
milliseconds.

What identifies a build is everything that goes into it; whoever changes the SDK gets another file, never a stale one.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component

from pie_engine.builder.componentize import SECONDS as COMPONENTIZE_S
from pie_engine.builder.componentize import Progress, componentize, digest_of_sources, lasting, moving
from pie_engine.builder.lock import locked
from pie_engine.builder.writing import writing_to
from pie_engine.host.engine import SETTINGS

log = logging.getLogger(__name__)

APP = "inferlet._runtime.app"
TEXT = "building the Python runtime (once per version)"
COMPILE_S = 9.0
"""Its share of a build, for the progress bar: how long it takes on 2 cores."""
UNUSED_DAYS = 30
BUILD_SUFFIX = ".build"
BUILD_BYTES = 200 << 20
"""What a build takes on the disk while it goes on."""


def load_runtime(engine: Engine, cache: Path, progress: Progress) -> Component:
    """The runtime component, from `cache` or built into it. Safe when several processes do this at once.

    Raises `InvalidConfig` for a `cache` that it would have to write to and cannot.
    """
    path = _path(cache, runtime_digest())
    component = _load(engine, path)
    if component is None:
        with writing_to(cache):
            component = _built(engine, path, progress)
    # One that was built into a folder which can only be read now is as good.
    with suppress(OSError):
        path.touch()
    return component


def _path(cache: Path, digest: str) -> Path:
    return cache / "runtime" / f"{digest}.cwasm"


def _built(engine: Engine, path: Path, progress: Progress) -> Component:
    """By this process, or by the one that was faster."""
    # Loading compiled code is running it, so nobody else may write there.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    waiting = "waiting for another process to build the Python runtime"
    with locked(path.with_suffix(".lock"), lambda: progress(waiting, 0.0)):
        component = _load(engine, path)
        if component is None:
            _build(engine, path, progress)
            component = Component.deserialize_file(engine, str(path))
    return component


def runtime_build(cache: Path) -> str:
    """Which build of which runtime `cache` holds: two builds of the same lay out their memory differently."""
    digest = runtime_digest()
    try:
        return f"{digest} {_path(cache, digest).with_suffix(BUILD_SUFFIX).read_text()}"
    except OSError:  # of a version that did not leave this
        return digest


def runtime_digest() -> str:
    """Of all that a build depends on."""
    digest = hashlib.blake2b(digest_of_sources(), digest_size=16)
    digest.update(f"wasmtime {version('wasmtime')}\0{SETTINGS}".encode())
    return digest.hexdigest()


def _load(engine: Engine, path: Path) -> Component | None:
    if not path.exists():
        return None
    try:
        return Component.deserialize_file(engine, str(path))
    except WasmtimeError:
        return None  # half a file, or not for this engine: it is built again


def _build(engine: Engine, path: Path, progress: Progress) -> None:
    if shutil.disk_usage(path.parent).free < BUILD_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    share = COMPONENTIZE_S / (COMPONENTIZE_S + COMPILE_S)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        wasm = Path(folder) / "runtime.wasm"
        with moving(progress, TEXT, 0.0, share, COMPONENTIZE_S):
            componentize(APP, Path(folder), wasm)
        with moving(progress, TEXT, share, 1.0, COMPILE_S):
            compiled = Component(engine, lasting(wasm.read_bytes(), log.warning)).serialize()
        finished = Path(folder) / path.name
        finished.write_bytes(compiled)
        path.with_suffix(BUILD_SUFFIX).write_text(secrets.token_hex(8))
        finished.rename(path)
    progress(TEXT, 1.0)
    _remove_unused(path.parent)


def _remove_unused(folder: Path) -> None:
    """Runtimes of versions that nobody has loaded for a while."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for path in folder.glob("*.cwasm"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
            path.with_suffix(BUILD_SUFFIX).unlink(missing_ok=True)
