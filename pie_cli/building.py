"""The work of `pie build`: from a folder to a component or a bundle, and where it is written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pie_cli import console
from pie_cli.project import note_what_is_left_out
from pie_engine.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pie_engine.builder.build import Built
    from pie_engine.protocol.program import Bundle, Manifest

OUTPUT_FOLDER = "dist"
"""Beside `pie.toml`; it does not travel with the program."""


def build_program(program: Path, output: Path | None, *, as_bundle: bool, locked: bool, upgrade: bool) -> Path:
    """Build it and write it to `output`; returns where it lies. What happens is told on stderr."""
    if not program.exists():
        raise NotFound(f"there is no file or folder `{program}`", hint="`pie new NAME` makes a program to start from")
    _refuse_built(program)
    note_what_is_left_out(program)
    if as_bundle:
        _refuse_crate(program)
    began = time.monotonic()
    bundle = _source_of(program, locked=locked, upgrade=upgrade)
    if as_bundle:
        from pie_engine.builder.archive import SUFFIX, archive_of

        _refuse_broken(program, bundle)
        path = output or _default_output(program, bundle.manifest, SUFFIX)
        data = archive_of(bundle)
        is_written = _write(path, data)
        _tell(bundle.manifest, path, len(data), is_new=is_written, seconds=time.monotonic() - began)
        console.note(f"digest: {bundle.digest}")
        return path
    path = output or _default_output(program, bundle.manifest, ".wasm")
    built = _component_of(program, bundle)
    is_written = _write(path, built.component)
    is_new = built.is_new or is_written
    _tell(bundle.manifest, path, len(built.component), is_new=is_new, seconds=time.monotonic() - began)
    _tell_content(built)
    _warn_if_large(len(built.component))
    return path


def _source_of(program: Path, *, locked: bool, upgrade: bool) -> Bundle:
    from pie_client.bundle import Packages, pack, pack_crate
    from pie_engine.builder.rust import is_crate

    bundle = pack_crate(program) if is_crate(program) else pack(program, Packages(locked, upgrade, console.note))
    if bundle.manifest.runtime == "component" and not is_crate(program):
        raise InvalidInput(f"{program} holds a component already", hint=f"`pie run {program}` runs it as it is")
    return bundle


def _component_of(program: Path, bundle: Bundle) -> Built:
    from pie_engine.builder.build import build
    from pie_engine.builder.python import PythonBuilder
    from pie_engine.builder.rust import RustBuilder, is_crate
    from pie_engine.config import load_paths

    if is_crate(program):
        # Its own reports would get into ours.
        return build(RustBuilder(program), bundle, load_paths().cache, lambda *_: None)
    with console.steps() as steps:
        return build(PythonBuilder(), bundle, load_paths().cache, steps.show)


def _refuse_built(program: Path) -> None:
    if program.suffix in (".wasm", ".pie"):
        raise InvalidInput(f"{program} is built already", hint=f"`pie inspect {program}` shows what is in it")


def _refuse_crate(program: Path) -> None:
    from pie_engine.builder.rust import is_crate

    if is_crate(program):
        message = f"{program} is a Rust program, and its sources do not run"
        raise InvalidInput(message, hint=f"`pie build {program}` makes a component, which does")


def _refuse_broken(program: Path, bundle: Bundle) -> None:
    """Raises `InvalidProgram` for a module that does not compile, whether anything imports it or not."""
    for path in bundle.own_modules():
        try:
            compile(bundle.files[path], path, "exec", dont_inherit=True)
        except SyntaxError:
            # Perhaps it is only too new for this Python: the sandbox's, which a build runs, has the last word.
            _component_of(program, bundle)
            return


def _default_output(program: Path, manifest: Manifest, suffix: str) -> Path:
    folder = program if program.is_dir() else program.parent
    return folder / OUTPUT_FOLDER / f"{manifest.name}-{manifest.version}{suffix}"


def _write(path: Path, data: bytes) -> bool:
    """Whole or not at all, and only when it is not there already."""
    from pie_engine.builder.lock import write_whole

    try:
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return False
        if path.is_dir():
            raise InvalidInput(f"`{path}` is a folder", hint="give the file's own name behind `-o`")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise InvalidInput(message, hint="choose another file with `-o`") from error
    return True


def _tell(manifest: Manifest, path: Path, num_bytes: int, *, is_new: bool, seconds: float) -> None:
    from pie_cli.sizes import bytes_text

    what = f"{manifest.name} {manifest.version}, {bytes_text(num_bytes)}"
    console.note(f"built {what} in {seconds:.1f} s" if is_new else f"unchanged: {what}")


def _warn_if_large(num_bytes: int) -> None:
    from pie_cli.sizes import bytes_text
    from pie_client.bundle import MAX_COMPONENT_BYTES

    if num_bytes > MAX_COMPONENT_BYTES:
        console.warning(
            f"a daemon takes components of at most {bytes_text(MAX_COMPONENT_BYTES)}: this one does not run"
        )
        console.show_hint("use fewer packages, or smaller data files")


def _tell_content(built: Built) -> None:
    from pie_cli.inspection import grouped
    from pie_engine.builder.wasm import imports_of

    for package, names in grouped(imports_of(built.component)).items():
        console.note(f"imports {package}: {', '.join(names)}")
    packages = built.record.packages
    if packages:
        console.note(f"packages: {', '.join(f'{name} {version}' for name, version in packages.items())}")
    console.note(f"digest: {built.record.digest}")
