"""Programs on disk: which one TARGET means, and what `pie new` writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pie_cli import console
from pie_engine.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pie_engine.protocol.program import Bundle

_PLACEHOLDER = "{{name}}"


def resolve_target(target: str) -> Bundle | str:
    """The bundle of a folder or file, or the reference (`name`, `name@version`, digest) of an uploaded program."""
    path = os.path.expanduser(target)
    if os.path.exists(path):
        from pie_client.bundle import Packages, pack

        return pack(path, Packages(say=console.note))
    if _looks_like_path(target):
        raise NotFound(f"there is no file or folder `{target}`", hint="`pie new NAME` makes a program to start from")
    return target


def template_names() -> list[str]:
    return sorted(folder.name for folder in _templates().iterdir() if folder.is_dir())


def create_program(folder: Path, template: str) -> list[Path]:
    """Copy a template to `folder`, which must be empty or not there; returns the files, relative to it."""
    import difflib

    from pie_engine.protocol.program import NAME

    names = template_names()
    if template not in names:
        near = difflib.get_close_matches(template, names, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"templates: {', '.join(names)}"
        raise InvalidInput(f"there is no template `{template}`", hint=hint)
    name = folder.absolute().name
    if not NAME.fullmatch(name):
        hint = "use letters, digits, `.`, `_` and `-`, with a letter or digit first, 100 of them at most"
        raise InvalidInput(f"`{name}` cannot be the name of a program", hint=hint)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidInput(f"`{folder}` exists already", hint="choose another name, or an empty folder")
        return _copy(_templates() / template, folder, name)
    except OSError as error:
        message = f"cannot make `{error.filename or folder}`: {error.strerror}"
        raise InvalidInput(message, hint="choose a folder that you can write to") from error


def _copy(source: Path, folder: Path, name: str) -> list[Path]:
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file() and _is_source(path))
    for file in files:
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((source / file).read_text("utf-8").replace(_PLACEHOLDER, name), "utf-8")
    return files


def _is_source(path: Path) -> bool:
    return "__pycache__" not in path.parts


def _templates() -> Path:
    """Inside the package when installed, at the top of the repository in a clone."""
    installed = Path(__file__).parent / "_data" / "templates"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "templates"


def _looks_like_path(target: str) -> bool:
    return os.sep in target or target.startswith((".", "~")) or target.endswith((".py", ".wasm", ".pie", ".toml"))
