"""A program's files as they travel: `pie.toml` and what lies beside it, one Python file, or what `pie build` made."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import tomli

from pie_client.manifest import MANIFEST_FILE, read_manifest
from pie_client.walk import BUILT, KEPT_OUT, SKIPPED_FOLDERS, Stamp, source_text, stamps_of
from pie_engine.config import MIB, load_paths
from pie_engine.errors import InvalidProgram, NotFound
from pie_engine.protocol.program import COMPONENT_FILE, Bundle, Manifest

MAX_BUNDLE_BYTES = 32 * MIB
MAX_COMPONENT_BYTES = 46 * MIB
"""In base64 this is within `gateway.max_body_mb`. Python and the SDK take 38."""
CRATE_FILE = "Cargo.toml"
_CARGO_OUTPUT = "target"
SETTLED_S = 2.0
"""A file that changed less than this ago may change again within one tick of its file system's clock."""

FOR_PEOPLE = frozenset({"README.md", "LICENSE", "CHANGELOG.md", "pie.lock"})
"""At the top of a folder these do not travel, nor does `pie.toml`, which is the manifest: a program without data files
starts in an instance that is kept warm."""
_NATIVE = re.compile(r"\.(so|pyd|dylib|dll)(\.[0-9.]+)?$")
_WANTED = "give a program's folder, a `.py` file, or what `pie build` made"

_packed: dict[Path, tuple[tuple[Stamp, ...], Bundle]] = {}


@dataclass(frozen=True)
class Packages:
    """How the packages of a program are taken. `locked`: refuse when pie.lock does not fit pie.toml. `upgrade`: choose
    them anew. `say`: told what is done, when that takes a while."""

    locked: bool = False
    upgrade: bool = False
    say: Callable[[str], None] = lambda text: None


_PACKAGES = Packages()


def pack(path: str | Path, packages: Packages = _PACKAGES) -> Bundle:
    """The program at `path`: a folder, one `.py` file, or a `.wasm` or `.pie` file of `pie build`.

    Of a folder these stay out: hidden files, backups of editors, `__pycache__`, `node_modules`, `tests/` and `dist/`,
    virtual environments, and its README, licence, changelog, pie.lock and `.wasm` and `.pie` files. Its packages, as
    pie.lock names them, go along. Links are followed, to files and folders, also out of the folder. Raises
    `NotFound`, or `InvalidProgram` that names the file and what is wrong with it. A folder that has not changed since
    the last call is not read again.
    """
    root = Path(path).absolute()
    if not os.path.exists(root):
        raise NotFound(f"there is no {path}", hint=_WANTED)
    try:
        return _pack(root, packages)
    except OSError as error:
        raise InvalidProgram(f"cannot read {error.filename or root}: {error.strerror}") from error


def _pack(root: Path, packages: Packages) -> Bundle:
    if not root.is_dir() and not root.is_file():
        raise InvalidProgram(f"{root} is neither a file nor a folder", hint=_WANTED)
    stamps = tuple(stamps_of(root))
    known = _packed.get(root)
    if known is not None and known[0] == stamps and not packages.upgrade:
        return known[1]
    bundle = _pack_folder(root, stamps, packages) if root.is_dir() else _pack_file(root, stamps)
    if all(max(mtime, ctime) < time.time_ns() - SETTLED_S * 1e9 for _, mtime, ctime, _, _ in stamps):
        _packed[root] = (stamps, bundle)
    else:
        _packed.pop(root, None)
    return bundle


def pack_crate(root: Path) -> Bundle:
    """The sources of a Rust program, which only `pie build` can use. Raises `InvalidProgram`."""
    stamps = tuple(stamps_of(root, (*SKIPPED_FOLDERS, _CARGO_OUTPUT)))
    _refuse_large(stamps, root)
    manifest = read_manifest(root) if (root / MANIFEST_FILE).is_file() else _crate_manifest(root)
    contents = {path: _read(root / path) for path, *_ in stamps}
    return Bundle(msgspec.structs.replace(manifest, runtime="component"), *_sorted_out(contents))


def _crate_manifest(root: Path) -> Manifest:
    file = root / CRATE_FILE
    try:
        package = tomli.loads(file.read_text("utf-8"))["package"]
        return Manifest(name=package["name"], version=str(package.get("version", "0.0.0")))
    except (KeyError, TypeError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        hint = f"write a {MANIFEST_FILE} with a `name` in `[program]`"
        raise InvalidProgram(f"{file} does not say what the program is called: {error!r}", hint=hint) from error


def _pack_folder(root: Path, stamps: tuple[Stamp, ...], packages: Packages) -> Bundle:
    paths = [path for path, *_ in stamps]
    if CRATE_FILE in paths and COMPONENT_FILE not in paths:
        raise InvalidProgram(f"{root} is a Rust program", hint="`pie build` makes a component of it, which runs")
    manifest = read_manifest(root) if MANIFEST_FILE in paths else Manifest(name=_name_of(root))
    if manifest.runtime == "component":
        return _pack_component(root, manifest)
    _refuse_native(paths, root)
    _refuse_large(stamps, root)
    contents = {path: _read(root / path) for path in paths if path != MANIFEST_FILE and path not in FOR_PEOPLE}
    for path in paths:
        if path.endswith(".py"):
            source_text(root / path, contents[path])
    if manifest.dependencies:
        contents |= _packages(root, manifest, contents, packages)
    return _with_entry(Bundle(manifest, *_sorted_out(contents)), root)


def _packages(root: Path, manifest: Manifest, own: Iterable[str], packages: Packages) -> dict[str, bytes]:
    """The files of the packages. Raises `InvalidProgram` when one of the program's own would hide them."""
    from pie_engine.builder.packages import packages_of, read_packages

    cache = load_paths().cache
    how = packages_of(
        root, manifest.dependencies, cache, say=packages.say, locked_only=packages.locked, upgrade=packages.upgrade
    )
    found = read_packages(how)
    for name in sorted({_top_of(path) for path in found} & {_top_of(path) for path in own}):
        raise InvalidProgram(
            f"{root} has a module `{name}`, and so has one of its `dependencies`", hint="rename one, or leave one out"
        )
    num_bytes = sum(map(len, found.values()))
    if num_bytes > MAX_BUNDLE_BYTES:
        raise InvalidProgram(
            f"the packages of {root} hold {num_bytes / MIB:.1f} MiB, and {MAX_BUNDLE_BYTES // MIB} MiB is the most",
            hint="use fewer or smaller ones",
        )
    return found


def _top_of(path: str) -> str:
    return path.partition("/")[0].removesuffix(".py")


def _sorted_out(contents: dict[str, bytes]) -> tuple[dict[str, str], dict[str, bytes]]:
    """Texts, and what is none."""
    files: dict[str, str] = {}
    blobs: dict[str, bytes] = {}
    for path, data in contents.items():
        try:
            files[path] = _text_of(path, data)
        except UnicodeDecodeError:
            blobs[path] = data
    return files, blobs


def _pack_file(file: Path, stamps: tuple[Stamp, ...]) -> Bundle:
    if file.suffix in BUILT:
        return _pack_built(file)
    if file.suffix != ".py":
        raise InvalidProgram(f"{file} is not a Python file", hint=_WANTED)
    _refuse_large(stamps, file)
    text = source_text(file, _read(file))
    return Bundle(Manifest(name=_name_of(file.with_suffix("")), entry=file.stem), {file.name: text})


def _pack_built(file: Path) -> Bundle:
    """What `pie build` wrote. It says itself what it is."""
    from pie_engine.builder.archive import bundle_of
    from pie_engine.builder.record import bundle_of_component, read_record

    data = _read_component(file)
    if file.suffix != ".wasm":
        return bundle_of(data, str(file))
    record = read_record(data, str(file))
    if record is None:
        hint = f'put it into a folder as {COMPONENT_FILE}, beside a {MANIFEST_FILE} with `runtime = "component"`'
        raise InvalidProgram(f"{file} was not built by `pie build`, so it does not say what it is called", hint=hint)
    return bundle_of_component(data, record)


def _pack_component(root: Path, manifest: Manifest) -> Bundle:
    component = root / COMPONENT_FILE
    if not component.exists():
        raise InvalidProgram(f"{root} has no {COMPONENT_FILE}", hint="build it first")
    return Bundle(manifest, blobs={COMPONENT_FILE: _read_component(component)})


def _read_component(file: Path) -> bytes:
    data = _read(file)
    if len(data) > MAX_COMPONENT_BYTES:
        raise InvalidProgram(
            f"{file} holds {len(data) / MIB:.1f} MiB, and {MAX_COMPONENT_BYTES // MIB} MiB is the most",
            hint="use fewer packages, or smaller data files",
        )
    return data


def _with_entry(bundle: Bundle, root: Path) -> Bundle:
    entry = bundle.manifest.entry
    module = entry.replace(".", "/")
    if f"{module}.py" in bundle.files or f"{module}/__init__.py" in bundle.files:
        return bundle
    if entry.endswith(".py") and entry in bundle.files:
        hint = f"`entry` is a module, not a file: `{entry.removesuffix('.py').replace('/', '.')}`"
    else:
        hint = f"write {module}.py with `async def main`, or name another `entry`"
    raise InvalidProgram(f"{root} has no module `{entry}`", hint=hint)


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
            hint=f"the largest file is {largest[0]} with {largest[3] / MIB:.1f} MiB; {KEPT_OUT}",
        )


def _text_of(path: str, data: bytes) -> str:
    """Of files other than source, the mark that some editors put before UTF-8 is a part."""
    return data.decode("utf-8-sig" if path.endswith(".py") else "utf-8")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidProgram(f"cannot read {file}: {error.strerror}") from error


def _name_of(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.name)[:100].strip("-._") or "program"
