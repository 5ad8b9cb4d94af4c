"""Adapters that were added to a running model, so that its next core has them again: links below the data folder.

adapters/MODEL/NAME    to the adapter's folder
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote


class AdapterLinks:
    """Of one model."""

    def __init__(self, folder: Path, model: str) -> None:
        self._folder = folder / quote(model, safe="")

    def all(self) -> dict[str, Path]:
        if not self._folder.is_dir():
            return {}
        return {path.name: Path(os.readlink(path)) for path in sorted(self._folder.iterdir()) if path.is_symlink()}

    def put(self, name: str, folder: Path) -> None:
        """In place of what had the name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{name}.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder)
        temporary.replace(self._folder / name)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
