"""Files that commands write."""

from __future__ import annotations

import os
from pathlib import Path

from pie_engine.errors import InvalidInput


def check_writable(path: Path, what: str) -> None:
    """Raises `InvalidInput` when `what` cannot be written there; nothing is touched."""
    folder = path.parent
    if path.is_dir():
        raise InvalidInput(f"cannot write {what} `{path}`: it is a folder", hint="give a file")
    if not folder.is_dir():
        raise InvalidInput(f"cannot write {what} `{path}`: there is no folder `{folder}`", hint="make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidInput(f"cannot write {what} `{path}`: permission denied", hint="give another file")


def write_text(path: Path, text: str) -> None:
    """Raises `InvalidInput` when it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}", hint="give another file") from error
