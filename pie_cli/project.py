"""Programs on disk: which one TARGET means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pie_cli import console
from pie_engine.errors import NotFound

if TYPE_CHECKING:
    from pie_engine.protocol.program import Bundle


def resolve_target(target: str) -> Bundle | str:
    """The bundle of a folder or file, or the reference (`name`, `name@version`, digest) of an uploaded program."""
    path = os.path.expanduser(target)
    if os.path.exists(path):
        from pie_client.bundle import Packages, pack

        return pack(path, Packages(say=console.note))
    if _looks_like_path(target):
        raise NotFound(f"there is no file or folder `{target}`", hint="`pie new NAME` makes a program to start from")
    return target


def _looks_like_path(target: str) -> bool:
    return os.sep in target or target.startswith((".", "~")) or target.endswith((".py", ".wasm", ".pie", ".toml"))
