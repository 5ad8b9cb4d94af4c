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

        note_what_is_left_out(path)
        return pack(path, Packages(say=console.note))
    if _looks_like_path(target):
        raise NotFound(f"there is no file or folder `{target}`", hint="`pie new NAME` makes a program to start from")
    return target


def note_what_is_left_out(path: str | os.PathLike[str]) -> None:
    """Of a program's folder one file alone is another program: without the manifest, other modules and packages."""
    from pie_client.manifest import MANIFEST_FILE

    folder, name = os.path.split(path)
    if name.endswith(".py") and os.path.isfile(os.path.join(folder, MANIFEST_FILE)):
        console.note(f"note: {name} alone; the program of the {MANIFEST_FILE} beside it is `{folder or '.'}`")


def _looks_like_path(target: str) -> bool:
    return os.sep in target or target.startswith((".", "~")) or target.endswith((".py", ".wasm", ".pie", ".toml"))
