"""Templates: programs to start from. Each is a folder; what all of them have in common lies in `_shared`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pie_engine.errors import InvalidInput

DEFAULT = "chat"
_SHARED = "_shared"
_PLACEHOLDER = "{{name}}"
_RUN = "pie run ."
"""The first command of a template's README begins so; it is what to try first."""


@dataclass(frozen=True)
class Template:
    """What `pie new` can make."""

    name: str
    description: str
    """One line, that of its pie.toml."""


@dataclass(frozen=True)
class Created:
    """A program that has just been made. `files` are relative to `folder`; `command` runs it."""

    folder: Path
    files: list[Path]
    command: str


def list_templates() -> list[Template]:
    """All of them, by name."""
    import tomli

    found = []
    for name in template_names():
        manifest = tomli.loads((_folder() / name / "pie.toml").read_text("utf-8"))
        found.append(Template(name, str(manifest["program"].get("description", ""))))
    return found


def template_names() -> list[str]:
    return sorted(each.name for each in _folder().iterdir() if each.is_dir() and each.name != _SHARED)


def create_program(folder: Path, template: str) -> Created:
    """Copy a template to `folder`, which must not be there or hold nothing but a `.git`.

    What fails or is interrupted leaves nothing. Raises `InvalidInput` for a template that does not exist, a name that
    no program can have, a folder with something in it or that cannot be written.
    """
    check_template(template)
    name = check_folder(folder)
    try:
        with _undone_on_failure() as made:
            files = sorted({path for source in (_folder() / _SHARED, _folder() / template) for path in _files(source)})
            for file in files:
                own = _folder() / template / file
                text = (own if own.is_file() else _folder() / _SHARED / file).read_text("utf-8")
                _write(folder / file, text.replace(_PLACEHOLDER, name), made)
    except OSError as error:
        message = f"cannot make `{error.filename or folder}`: {error.strerror}"
        raise InvalidInput(message, hint="choose a folder that you can write to") from error
    return Created(folder, files, _first_command(folder))


def check_template(template: str) -> None:
    """Raises `InvalidInput` with the nearest one."""
    import difflib

    names = template_names()
    if template not in names:
        begun = [name for name in names if template and name.startswith(template)]
        near = begun or difflib.get_close_matches(template, names, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"templates: {', '.join(names)}"
        raise InvalidInput(f"there is no template `{template}`", hint=hint)


def check_folder(folder: Path) -> str:
    """The name of a program that would be made there. Raises `InvalidInput` where none can be made."""
    from pie_engine.protocol.program import NAME

    name = folder.absolute().name
    if not NAME.fullmatch(name):
        hint = "use letters, digits, `.`, `_` and `-`, with a letter or digit first, 100 of them at most"
        raise InvalidInput(f"`{name}` cannot be the name of a program", hint=hint)
    with suppress(OSError):  # writing tells it better
        if folder.exists() and (not folder.is_dir() or any(each.name != ".git" for each in folder.iterdir())):
            raise InvalidInput(f"`{folder}` exists already", hint="choose another name, or an empty folder")
    return name


@contextmanager
def _undone_on_failure() -> Iterator[list[Path]]:
    """A list of what is made, in order; all of it goes again when the block fails or is interrupted."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise


def _write(path: Path, text: str, made: list[Path]) -> None:
    for parent in reversed(path.parents):
        if not parent.exists():
            made.append(parent)
            parent.mkdir()
    made.append(path)
    path.write_text(text, "utf-8")


def _first_command(folder: Path) -> str:
    """What the program's README tries first, typed where `pie new` was."""
    command, readme = _RUN, folder / "README.md"
    if readme.is_file():
        lines = readme.read_text("utf-8").splitlines()
        command = next((line for line in lines if line.startswith(_RUN)), _RUN)
    return f"pie run {shlex.quote(str(folder))}{command.removeprefix(_RUN)}"


def _files(source: Path) -> list[Path]:
    """Relative to it."""
    if not source.is_dir():
        return []
    return [path.relative_to(source) for path in source.rglob("*") if path.is_file() and _is_source(path)]


def _is_source(path: Path) -> bool:
    return not {"__pycache__", ".pytest_cache"} & {*path.parts}


def _folder() -> Path:
    """Inside the package when installed, at the top of the repository in a clone."""
    installed = Path(__file__).parent / "_data" / "templates"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "templates"
