"""The user's editor, opened where an error is."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pie_cli import console

if TYPE_CHECKING:
    from pie_cli.keys import Keys

_PLACE = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
_FILE_PLACE = re.compile(r"^(?P<file>.+\.(?:toml|py)):? .*\bline (?P<line>\d+)", re.MULTILINE)
"""Of a file that could not even be read."""
_GOTO = frozenset({"code", "code-insiders", "codium", "cursor", "windsurf"})
_COLON = frozenset({"hx", "helix", "subl", "zed"})
_JETBRAINS = frozenset({"idea", "pycharm", "charm"})
_OWN_WINDOW = _GOTO | _COLON - {"hx", "helix"} | _JETBRAINS
_WAITS = frozenset({"--wait", "-w"})
"""For git these editors wait until the file is closed. Here its saves are what is waited for."""


class Place(NamedTuple):
    file: Path
    line: int


def place_of(traceback: str, root: Path) -> Place | None:
    """The innermost place of a traceback that is in a file of the program in `root`, a folder or a file.

    An error of pie.toml, or of a file that is no text, names its place, too.
    """
    folder = root if root.is_dir() else root.parent
    for match in (*_FILE_PLACE.finditer(traceback), *reversed(list(_PLACE.finditer(traceback)))):
        file = folder / match["file"]
        if file.is_file():
            return Place(file, int(match["line"]))
    return None


def command_for(place: Place, editor: str = "") -> list[str]:
    """The words that open the editor of `VISUAL` or `EDITOR`, else vi, at a line. `editor`: in place of these."""
    words = shlex.split(editor or os.environ.get("VISUAL") or os.environ.get("EDITOR") or "") or ["vi"]
    name, file, line = Path(words[0]).stem.lower(), str(place.file), place.line
    if name in _OWN_WINDOW:
        words = [word for word in words if word not in _WAITS]
    if name in _GOTO:
        return [*words, "--goto", f"{file}:{line}"]
    if name in _COLON:
        return [*words, f"{file}:{line}"]
    if name in _JETBRAINS:
        return [*words, "--line", str(line), file]
    # vi and its family, nano, emacs, micro, kak, joe, …
    return [*words, f"+{line}", file]


async def edit(traceback: str, root: Path, keys: Keys) -> None:
    """Opens the editor at the innermost place of the program in a traceback, until it is closed."""
    place = place_of(traceback, root)
    if place is None:
        console.note("there is no error in a file of this program to open")
        return
    with keys.lent():
        problem = await asyncio.to_thread(_run_editor, place)
    if problem:
        console.error(problem, "set EDITOR")


def _run_editor(place: Place) -> str:
    """Returns what went wrong, else an empty text."""
    command = command_for(place)
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        return f"cannot run `{command[0]}`: {error.strerror}"
    return f"`{command[0]}` ended with exit status {status}" if status else ""
