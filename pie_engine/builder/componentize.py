"""componentize-py: from an application of the SDK to a component that holds Python, the SDK and that application."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pie_engine.builder import image
from pie_engine.errors import Internal, Unsupported

Progress = Callable[[str, float], None]
"""What is being done, and how much of it, 0 to 1."""

WORLD = "inferlet"
TOOL = "componentize-py"
SECONDS = 12.0
"""How long it takes, for the progress bar: on 2 cores."""
PROGRESS_EVERY_S = 0.5


def componentize(app: str, folder: Path, wasm: Path, modules: Mapping[str, str] | None = None) -> str:
    """Build the component `wasm` from a module of the SDK; returns what the application wrote meanwhile.

    `folder` is for what is needed on the way; `modules` are more modules that the application finds, source by name.
    Raises `ComponentizeFailed`, or `Unsupported` where componentize-py is not installed.
    """
    packages = folder / "packages"
    # componentize-py takes whatever it can see, and the SDK may be installed beside everything else.
    shutil.copytree(sdk_folder(), packages / "inferlet", ignore=shutil.ignore_patterns("__pycache__"))
    for name, source in (modules or {}).items():
        (packages / f"{name}.py").write_text(source, "utf-8")
    tool = [sys.executable, "-c", "import componentize_py, sys; sys.exit(componentize_py.script())"]
    inputs = ["-d", str(wit_folder()), "-w", WORLD]
    command = [*tool, "-q", *inputs, "componentize", app, "-p", str(packages), "-o", str(wasm)]
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    require_tool()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    said = done.stderr + done.stdout
    if done.returncode != 0 or not wasm.exists():
        raise ComponentizeFailed(said)
    return said


class ComponentizeFailed(Internal):
    """componentize-py gave up; `said` is all that it and the application wrote."""

    def __init__(self, said: str) -> None:
        super().__init__(
            f"componentize-py cannot build the component: {said.strip()[:4000]}",
            hint="reinstall Pie; if that does not help, please report it",
        )
        self.said = said


def require_tool() -> str:
    """The version of componentize-py. Raises `Unsupported` where there is none."""
    try:
        return version(TOOL)
    except PackageNotFoundError:
        raise Unsupported(
            f"{TOOL} is not installed",
            hint='install Pie with its extra `engine`; in a checkout: pip install ".[engine]"',
        ) from None


def lasting(component: bytes, warn: Callable[[str], None]) -> bytes:
    """The component with the objects of its Python immortal, as `image` says; as it is where that cannot be done."""
    try:
        return image.immortalise(component)
    except image.ImageError as error:
        warn(f"programs will start more slowly: {error}")
        return component


def digest_of_sources() -> bytes:
    """Of all that a build of any application depends on: SDK, WIT, componentize-py and what is done to its output."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update("\0".join([require_tool(), platform.machine(), sys.platform]).encode())
    for folder, pattern in ((sdk_folder(), "*.py"), (wit_folder(), "*.wit")):
        for path in sorted(folder.rglob(pattern)):
            digest.update(f"\0{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    digest.update(Path(image.__file__).read_bytes())
    return digest.digest()


def wit_digest() -> str:
    """Of the interfaces alone: what a component and the host that runs it must have in common."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(wit_folder().rglob("*.wit")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sdk_folder() -> Path:
    spec = importlib.util.find_spec("inferlet")
    if spec is None or not spec.submodule_search_locations:
        raise Internal("the package `inferlet` is not installed", hint="reinstall Pie")
    return Path(next(iter(spec.submodule_search_locations)))


def wit_folder() -> Path:
    """In an installed Pie inside this package, in a checkout beside the SDK."""
    package = Path(__file__).parent.parent
    candidates = (package / "_data" / "wit", package.parent / "sdk" / "wit")
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is None:
        raise Internal("the WIT files are not installed", hint="reinstall Pie")
    return found


@contextmanager
def moving(progress: Progress, text: str, start: float, end: float, expected_s: float) -> Iterator[None]:
    """Reports that go on from `start` to `end` while a tool runs that says nothing of its own."""
    is_done = threading.Event()
    began = time.monotonic()

    def report() -> None:
        while True:
            part = 1 - math.exp((began - time.monotonic()) / expected_s)
            progress(text, start + (end - start) * part)
            if is_done.wait(PROGRESS_EVERY_S):
                return

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()
