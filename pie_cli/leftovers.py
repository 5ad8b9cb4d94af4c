"""Files that Pie can make again, or has left behind: what `pie gc` takes away."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pie_engine.config import Paths

DAY_S = 86400.0
RUNNING_DAYS = 1.0
"""What a running daemon may be using is younger than this: each launch touches what it uses."""
CACHES = {
    "runtime": "Python runtimes, one for each version",
    "kernels": "compiled kernels, one set for each version and kind of model",
    "components": "compiled components",
    "builds": "built components",
    "packages": "packages of programs",
    "programs": "data files of programs",
    "gguf": "tokenizers of GGUF files",
}
"""Folders of the cache, and what is in them."""
DRAFTS = ("draft-*", ".config-*", "*.partial", ".draft-*")
"""What something that was cut off leaves behind."""


@dataclass
class Leftovers:
    """One kind of them."""

    what: str
    paths: list[Path] = field(default_factory=list)
    num_bytes: int = 0

    def add(self, path: Path) -> None:
        self.paths.append(path)
        self.num_bytes += size_of(path)

    def remove(self) -> None:
        """What cannot be removed stays; somebody else may be doing the same."""
        for path in self.paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def find_leftovers(paths: Paths, older_than_days: float, *, is_running: bool) -> list[Leftovers]:
    """Not used for so many days. `is_running`: a daemon may have some of them in hand."""
    days = max(older_than_days, RUNNING_DAYS) if is_running else older_than_days
    before = time.time() - days * DAY_S
    found = [_old(Leftovers(what), paths.cache / name, before) for name, what in CACHES.items()]
    drafts = Leftovers("half-written files")
    for folder in (paths.home, paths.home / "contexts", paths.cache):
        for pattern in DRAFTS:
            for path in folder.glob(pattern):
                if _used(path) <= min(before, time.time() - RUNNING_DAYS * DAY_S):
                    drafts.add(path)
    return [*found, drafts]


def size_of(path: Path) -> int:
    """Of a file, or of all in a folder, on the disk."""
    return sum(_bytes(each) for each in _files(path))


def _old(found: Leftovers, folder: Path, before: float) -> Leftovers:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if _used(path) <= before:
                found.add(path)
    return found


def _used(path: Path) -> float:
    """When it, or anything in it, was last written or touched."""
    return max((_mtime(each) for each in (path, *_files(path))), default=0.0)


def _mtime(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def _files(path: Path) -> Iterator[Path]:
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)
