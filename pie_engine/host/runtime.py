"""The shared Python runtime: one component with CPython and the SDK in it, built once per version and then loaded in
milliseconds.

What identifies a build is everything that goes into it; whoever changes the SDK gets another file, never a stale one.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component

from pie_engine.errors import Internal
from pie_engine.host import image
from pie_engine.host.cache import writing_to
from pie_engine.host.engine import SETTINGS

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
"""What is being done, and how much of it, 0 to 1."""

APP = "inferlet._runtime.app"
WORLD = "inferlet"
TOOLS = ("componentize-py", "wasmtime")
TEXT = "building the Python runtime (once per version)"
# Shares of a build, for the progress bar, and how long it takes on 2 cores.
COMPONENTIZE_S, COMPILE_S = 12.0, 9.0
PROGRESS_EVERY_S = 0.5
UNUSED_DAYS = 30


def load_runtime(engine: Engine, cache: Path, progress: Progress) -> Component:
    """The runtime component, from `cache` or built into it. Safe when several processes do this at once.

    Raises `InvalidConfig` for a `cache` that it would have to write to and cannot.
    """
    path = cache / "runtime" / f"{runtime_digest()}.cwasm"
    component = _load(engine, path)
    if component is None:
        with writing_to(cache):
            component = _built(engine, path, progress)
    # One that was built into a folder which can only be read now is as good.
    with suppress(OSError):
        path.touch()
    return component


def _built(engine: Engine, path: Path, progress: Progress) -> Component:
    """By this process, or by the one that was faster."""
    # Loading compiled code is running it, so nobody else may write there.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock"), progress):
        component = _load(engine, path)
        if component is None:
            _build(engine, path, progress)
            component = Component.deserialize_file(engine, str(path))
    return component


def runtime_digest() -> str:
    """Of all that a build depends on."""
    digest = hashlib.blake2b(digest_size=16)
    tools = [f"{tool} {version(tool)}" for tool in TOOLS]
    digest.update("\0".join([*tools, platform.machine(), sys.platform, SETTINGS]).encode())
    for folder, pattern in ((_sdk_folder(), "*.py"), (_wit_folder(), "*.wit")):
        for path in sorted(folder.rglob(pattern)):
            digest.update(f"\0{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    digest.update(Path(image.__file__).read_bytes())
    return digest.hexdigest()


def _load(engine: Engine, path: Path) -> Component | None:
    if not path.exists():
        return None
    try:
        return Component.deserialize_file(engine, str(path))
    except WasmtimeError:
        return None  # half a file, or not for this engine: it is built again


def _build(engine: Engine, path: Path, progress: Progress) -> None:
    share = COMPONENTIZE_S / (COMPONENTIZE_S + COMPILE_S)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        wasm = Path(folder) / "runtime.wasm"
        with _moving(progress, 0.0, share, COMPONENTIZE_S):
            componentize(Path(folder), wasm)
        with _moving(progress, share, 1.0, COMPILE_S):
            compiled = Component(engine, _with_lasting_objects(wasm.read_bytes())).serialize()
        finished = Path(folder) / path.name
        finished.write_bytes(compiled)
        finished.rename(path)
    progress(TEXT, 1.0)
    _remove_unused(path.parent)


def _with_lasting_objects(component: bytes) -> bytes:
    try:
        return image.immortalise(component)
    except image.ImageError as error:
        log.warning("programs will start more slowly: %s", error)
        return component


def componentize(folder: Path, wasm: Path) -> None:
    """Build the component from the SDK; `folder` is for what is needed on the way."""
    packages = folder / "packages"
    # componentize-py takes whatever it can see, and the SDK may be installed beside everything else.
    shutil.copytree(_sdk_folder(), packages / "inferlet", ignore=shutil.ignore_patterns("__pycache__"))
    tool = [sys.executable, "-c", "import componentize_py, sys; sys.exit(componentize_py.script())"]
    inputs = ["-d", str(_wit_folder()), "-w", WORLD]
    command = [*tool, "-q", *inputs, "componentize", APP, "-p", str(packages), "-o", str(wasm)]
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    if done.returncode != 0 or not wasm.exists():
        raise Internal(
            f"componentize-py cannot build the Python runtime: {(done.stderr or done.stdout).strip()[:4000]}",
            hint="reinstall Pie; if that does not help, please report it",
        )


def _sdk_folder() -> Path:
    spec = importlib.util.find_spec("inferlet")
    if spec is None or not spec.submodule_search_locations:
        raise Internal("the package `inferlet` is not installed", hint="reinstall Pie")
    return Path(next(iter(spec.submodule_search_locations)))


def _wit_folder() -> Path:
    """In an installed Pie inside this package, in a checkout beside the SDK."""
    package = Path(__file__).parent.parent
    candidates = (package / "_data" / "wit", package.parent / "sdk" / "wit")
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is None:
        raise Internal("the WIT files are not installed", hint="reinstall Pie")
    return found


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Held by the one process that builds; the kernel lets go of it when that dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process to build the Python runtime", 0.0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _moving(progress: Progress, start: float, end: float, expected_s: float) -> Iterator[None]:
    """Reports that go on from `start` to `end` while a tool runs that says nothing of its own."""
    is_done = threading.Event()
    began = time.monotonic()

    def report() -> None:
        while True:
            part = 1 - math.exp((began - time.monotonic()) / expected_s)
            progress(TEXT, start + (end - start) * part)
            if is_done.wait(PROGRESS_EVERY_S):
                return

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _remove_unused(folder: Path) -> None:
    """Runtimes of versions that nobody has loaded for a while."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for path in folder.glob("*.cwasm"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
