"""The files of a program's folder: which belong to it, and stamps that tell whether one has changed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pie_engine.errors import InvalidProgram
from pie_engine.protocol.program import COMPONENT_FILE

MAX_FILES = 5000
SKIPPED_FOLDERS = ("__pycache__", "tests", "dist")
"""At the top of a folder these do not travel."""
_TOOLS_FOLDERS = frozenset({"__pycache__", "node_modules"})
"""Of tools, wherever they lie. So are hidden folders and virtual environments."""
BUILT = (".wasm", ".pie")
"""What `pie build` writes does not become a part of what it is built from."""
_BYPRODUCTS = ("~", ".pyc", "___jb_tmp___", "___jb_old___")
"""How names end of what Python and editors leave beside a file."""
KEPT_OUT = "what it does not read belongs elsewhere, or below a folder whose name begins with a dot"
"""The way out for who has too much in a program's folder."""

Stamp = tuple[str, int, int, int, int]
"""Path, mtime, ctime, size, inode: any edit changes one of them."""


def stamps_of(root: Path, skipped: tuple[str, ...] = SKIPPED_FOLDERS) -> Iterator[Stamp]:
    """Of every file that belongs to the program. `skipped`: folders at the top that stay out."""
    if root.is_file():
        yield _stamp(str(root), root.stat())
        return
    entries = _walk(str(root), "", (os.path.realpath(root),), skipped)
    files = ((entry, path) for entry, path in entries if not entry.is_dir())
    fullest: Counter[str] = Counter()
    for num_before, (entry, path) in enumerate(files):
        if num_before == MAX_FILES:
            raise InvalidProgram(f"{root} holds more than {MAX_FILES} files", hint=_hint(fullest.most_common(1)[0]))
        fullest[path.rpartition("/")[0]] += 1
        yield _stamp(path, entry.stat())


def folders_of(root: Path) -> Iterator[str]:
    """Where a change of the program in `root` shows: its folders, and those that its links lead to."""
    yield str(root)
    for entry, _ in _walk(str(root), "", (os.path.realpath(root),), SKIPPED_FOLDERS):
        if entry.is_dir():
            yield entry.path
        elif entry.is_symlink():
            yield os.path.dirname(os.path.realpath(entry.path))


def source_text(file: Path, data: bytes) -> str:
    """Without the mark that some editors put before UTF-8. Raises `InvalidProgram` with the line that is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidProgram(f"{file} is not UTF-8 in line {line}: {error.reason}", hint="save it as UTF-8") from error


def _hint(fullest: tuple[str, int]) -> str:
    """Of many files: where most of them are, so far."""
    folder, num_files = fullest
    what = f"`{folder}` holds {num_files} of them" if folder else "is it the program's own folder?"
    return f"{what}; {KEPT_OUT}"


def _stamp(path: str, stat: os.stat_result) -> Stamp:
    return (path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)


def _walk(
    folder: str, prefix: str, inside: tuple[str, ...], skipped: tuple[str, ...]
) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Every file and folder that belongs to the program, with its POSIX path, in a fixed order.

    skipped: folders at the top that stay out.
    inside: where the folders on the way here really are, the last one being `folder`.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = f"{prefix}{entry.name}"
            if _is_byproduct(entry.name):
                continue
            if path in skipped and not entry.is_file():
                continue
            if path.endswith(BUILT) and not prefix and path != COMPONENT_FILE:
                continue
            _check_name(entry)
            real = _followed(entry, inside) if entry.is_symlink() else f"{inside[-1]}/{entry.name}"
            if entry.is_dir():
                if entry.name not in _TOOLS_FOLDERS and not _is_environment(entry.path):
                    yield entry, path
                    yield from _walk(entry.path, f"{path}/", (*inside, real), skipped)
            elif entry.is_file():
                yield entry, path


def _is_byproduct(name: str) -> bool:
    """Hidden files, and what programs leave: `main.py~`, `#main.py#`."""
    return name.startswith(".") or name.endswith(_BYPRODUCTS) or (name.startswith("#") and name.endswith("#"))


def _check_name(entry: os.DirEntry[str]) -> None:
    try:
        entry.name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
        raise InvalidProgram(f"the name of {shown} is not UTF-8", hint="rename it") from error


def _followed(link: os.DirEntry[str], inside: tuple[str, ...]) -> str:
    """Where a link leads. Raises `InvalidProgram` when there is nothing, or a folder that we are in already."""
    shown = f"{link.path} is a link to {os.readlink(link.path)}"
    try:
        real = os.path.realpath(link.path, strict=True)
    except OSError as error:
        raise InvalidProgram(
            f"{shown}, which cannot be followed: {error.strerror}", hint="mend or remove it"
        ) from error
    if any(os.path.commonpath((real, folder)) == real for folder in inside):
        raise InvalidProgram(f"{shown}, the folder that it lies in: it has no end", hint="remove it")
    return real


def _is_environment(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "pyvenv.cfg"))
