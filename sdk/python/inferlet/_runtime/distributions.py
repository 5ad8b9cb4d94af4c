"""What `importlib.metadata` finds: the packages that travel with a program, by their `.dist-info` folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution
from pathlib import Path

SUFFIX = ".dist-info"


class BundleDistribution(Distribution):
    """One package. Its `METADATA` and `entry_points.txt` are among the texts of the bundle."""

    def __init__(self, files: Mapping[str, str], folder: str, root: str) -> None:
        self._files = files
        self._folder = folder
        self._root = root

    def read_text(self, filename: str) -> str | None:
        return self._files.get(f"{self._folder}/{filename}")

    def locate_file(self, path: object) -> Path:
        return Path(self._root, str(path))


def distributions(files: Mapping[str, str], name: str | None, root: str) -> Iterator[BundleDistribution]:
    """All, or the one of this name, which is the same with `-`, `_` and `.` and in any case (PEP 503)."""
    wanted = None if name is None else _normal(name)
    folders = dict.fromkeys(path.partition("/")[0] for path in files if SUFFIX + "/" in path)
    for folder in folders:
        if wanted in (None, _normal(folder.removesuffix(SUFFIX).rpartition("-")[0])):
            yield BundleDistribution(files, folder, root)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
