"""A program's files as they travel: `pie.toml` and what lies beside it, or one Python file."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from pie_client.manifest import MANIFEST_FILE, read_manifest
from pie_engine.config import MIB
from pie_engine.errors import InvalidProgram, NotFound
from pie_engine.protocol.program import Bundle, Manifest

COMPONENT_FILE = "program.wasm"
MAX_BUNDLE_BYTES = 32 * MIB
MAX_FILES = 5000
SETTLED_S = 2.0
"""A file that changed less than this ago may change again within one tick of its file system's clock."""

_SKIPPED_FOLDERS = ("__pycache__", "tests")
_FOR_PEOPLE = frozenset({"README.md", "LICENSE", "CHANGELOG.md"})
"""At the top of a folder these do not travel, nor does `pie.toml`, which is the manifest: a program without data files
starts in an instance that is kept warm."""
_NATIVE = re.compile(r"\.(so|pyd|dylib|dll)(\.[0-9.]+)?$")
Stamp = tuple[str, int, int, int, int]
"""Path, mtime, ctime, size, inode: any edit changes one of them."""

_packed: dict[Path, tuple[tuple[Stamp, ...], Bundle]] = {}


def pack(path: str | Path) -> Bundle:
    """The program at `path`: a folder or one `.py` file.

    Hidden files, `__pycache__`, `tests/`, virtual environments and the folder's README, licence and changelog stay out.
    Links are followed, to files and folders, also out of the folder. Raises `NotFound`, or `InvalidProgram` that names
    the file and what is wrong with it. A folder that has not changed since the last call is not read again.
    """
    root = Path(path).absolute()
    if not os.path.exists(root):
        raise NotFound(f"there is no {path}", hint="give a program's folder or a .py file")
    try:
        return _pack(root)
    except OSError as error:
        raise InvalidProgram(f"cannot read {error.filename or root}: {error.strerror}") from error


def _pack(root: Path) -> Bundle:
    if not root.is_dir() and not root.is_file():
        raise InvalidProgram(f"{root} is neither a file nor a folder", hint="give a program's folder or a .py file")
    stamps = tuple(_stamps(root))
    known = _packed.get(root)
    if known is not None and known[0] == stamps:
        return known[1]
    bundle = _pack_folder(root, stamps) if root.is_dir() else _pack_file(root, stamps)
    if all(max(mtime, ctime) < time.time_ns() - SETTLED_S * 1e9 for _, mtime, ctime, _, _ in stamps):
        _packed[root] = (stamps, bundle)
    else:
        _packed.pop(root, None)
    return bundle


# Files.


def _stamps(root: Path) -> Iterator[Stamp]:
    if root.is_file():
        yield _stamp(str(root), root.stat())
        return
    for num_before, (entry, path) in enumerate(_walk(str(root), "", (os.path.realpath(root),))):
        if num_before == MAX_FILES:
            raise InvalidProgram(f"{root} holds more than {MAX_FILES} files", hint="is it the program's own folder?")
        yield _stamp(path, entry.stat())


def _stamp(path: str, stat: os.stat_result) -> Stamp:
    return (path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)


def _walk(folder: str, prefix: str, inside: tuple[str, ...]) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Every file that belongs to the program, with its POSIX path, in a fixed order.

    inside: where the folders on the way here really are, the last one being `folder`.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = f"{prefix}{entry.name}"
            if entry.name.startswith(".") or entry.name.endswith(".pyc"):
                continue
            if path in _SKIPPED_FOLDERS and not entry.is_file():
                continue
            _check_name(entry)
            real = _followed(entry, inside) if entry.is_symlink() else f"{inside[-1]}/{entry.name}"
            if entry.is_dir():
                if entry.name != "__pycache__" and not _is_environment(entry.path):
                    yield from _walk(entry.path, f"{path}/", (*inside, real))
            elif entry.is_file():
                yield entry, path


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


def _pack_folder(root: Path, stamps: tuple[Stamp, ...]) -> Bundle:
    paths = [path for path, *_ in stamps]
    manifest = read_manifest(root) if MANIFEST_FILE in paths else Manifest(name=_name_of(root))
    if manifest.runtime == "component":
        return _pack_component(root, manifest)
    _refuse_native(paths, root)
    _refuse_large(stamps, root)
    files: dict[str, str] = {}
    blobs: dict[str, bytes] = {}
    for path in paths:
        if path == MANIFEST_FILE or path in _FOR_PEOPLE:
            continue
        data = _read(root / path)
        try:
            files[path] = _text_of(path, data)
        except UnicodeDecodeError:
            blobs[path] = data
    return _with_entry(Bundle(manifest, files, blobs), root)


def _pack_file(file: Path, stamps: tuple[Stamp, ...]) -> Bundle:
    if file.suffix != ".py":
        raise InvalidProgram(f"{file} is not a Python file", hint="give a `.py` file or a program's folder")
    _refuse_large(stamps, file)
    try:
        text = _text_of(file.name, _read(file))
    except UnicodeDecodeError as error:
        raise InvalidProgram(f"{file} is not UTF-8: {error}") from error
    return Bundle(Manifest(name=_name_of(file.with_suffix("")), entry=file.stem), {file.name: text})


def _pack_component(root: Path, manifest: Manifest) -> Bundle:
    component = root / COMPONENT_FILE
    if not component.exists():
        raise InvalidProgram(f"{root} has no {COMPONENT_FILE}", hint="build it first")
    return Bundle(manifest, blobs={COMPONENT_FILE: _read(component)})


def _with_entry(bundle: Bundle, root: Path) -> Bundle:
    entry = bundle.manifest.entry
    module = entry.replace(".", "/")
    if f"{module}.py" in bundle.files or f"{module}/__init__.py" in bundle.files:
        return bundle
    if f"{module}.py" in bundle.blobs:
        raise InvalidProgram(f"{root / module}.py is not UTF-8", hint="save it as UTF-8")
    raise InvalidProgram(
        f"{root} has no module `{entry}`", hint=f"write {module}.py with `async def main`, or name another `entry`"
    )


def _refuse_native(paths: list[str], root: Path) -> None:
    for path in paths:
        if _NATIVE.search(path):
            raise InvalidProgram(
                f"{root / path} is native code, which cannot run in the sandbox", hint="use pure Python packages"
            )


def _refuse_large(stamps: tuple[Stamp, ...], root: Path) -> None:
    total = sum(size for *_, size, _ in stamps)
    if total > MAX_BUNDLE_BYTES:
        largest = max(stamps, key=lambda stamp: stamp[3])
        raise InvalidProgram(
            f"{root} holds {total / MIB:.1f} MiB, and {MAX_BUNDLE_BYTES // MIB} MiB is the most",
            hint=f"the largest file is {largest[0]} with {largest[3] / MIB:.1f} MiB",
        )


def _text_of(path: str, data: bytes) -> str:
    """Source without the mark that some editors put before UTF-8; of other files it is a part."""
    return data.decode("utf-8-sig" if path.endswith(".py") else "utf-8")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidProgram(f"cannot read {file}: {error.strerror}") from error


def _name_of(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.name)[:100].strip("-._") or "program"
