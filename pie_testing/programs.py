"""Which program a test means: its own folder's, a path, or `main` itself."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pie_client import pack
from pie_client.manifest import MANIFEST_FILE
from pie_engine.errors import InvalidInput, NotFound
from pie_engine.protocol.program import Bundle, Manifest

Program = str | Path | Bundle | Callable[..., Any] | None


def bundle_of(program: Program, here: Path) -> Bundle:
    """The bundle of a program. `here`: the folder of the test.

    None: the program that `here` belongs to. A path counts from `here`. A function stands for the program that its
    file belongs to. A text of several lines is a program itself. Raises `NotFound`, `InvalidInput` or
    `InvalidProgram`.
    """
    if program is None:
        return pack(_own(here))
    if isinstance(program, Bundle):
        return program
    if isinstance(program, str) and is_source(program):
        return Bundle(Manifest(name="program"), {"main.py": textwrap.dedent(program)})
    if isinstance(program, str | Path):
        return pack(here / Path(program).expanduser())
    if not callable(program):
        raise InvalidInput(
            f"a program is its folder, its `main` or its source; got {type(program).__name__}",
            hint="arguments of `main` go by name: `run(prompt=…)`",
        )
    return pack(_of_function(program))


def with_manifest(bundle: Bundle, **fields: Any) -> Bundle:
    """With these in its manifest."""
    return msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, **fields))


def is_source(program: Program) -> bool:
    """Whether it is written in the test itself."""
    return isinstance(program, str) and "\n" in program


def program_folder(here: Path) -> Path | None:
    """The nearest folder at or above `here` that holds a program."""
    for folder in (here, *here.parents):
        if (folder / MANIFEST_FILE).is_file() or (folder / "main.py").is_file():
            return folder
    return None


def _own(here: Path) -> Path:
    folder = program_folder(here)
    if folder is None:
        raise NotFound(
            f"no program is in {here} or above it: there is neither a pie.toml nor a main.py",
            hint="name it: `run(FOLDER, …)`, or `run(main, …)`",
        )
    return folder


def _of_function(main: Callable[..., Any]) -> Path:
    code = getattr(inspect.unwrap(main), "__code__", None)
    path = Path(code.co_filename if code is not None else "")
    if not path.is_file():
        raise InvalidInput(f"`{main!r}` is in no file", hint="run its folder instead")
    if path.name.startswith("test_") or path.stem.endswith("_test") or path.name == "conftest.py":
        name = getattr(main, "__name__", repr(main))
        raise InvalidInput(
            f"`{name}` is in {path.name}, a test, which would have to run in the sandbox as a whole",
            hint="put it into a module of its own, or give `run` its source as a text",
        )
    with_manifest = next((folder for folder in path.parents if (folder / MANIFEST_FILE).is_file()), None)
    if with_manifest is not None:
        return with_manifest
    return path.parent if path.name == "main.py" else path
