"""Which Python a program is debugged in: one of the sandbox's version, or else our own, with what it lacks."""

from __future__ import annotations

import ast
import glob
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pie_cli import console
from pie_engine.errors import InvalidInput, InvalidProgram, Unsupported
from pie_engine.protocol.program import GUEST_PYTHON

PROBE_S = 20.0
OLDEST = (3, 11)
NEWER_MODULES = frozenset({"annotationlib", "compression", "concurrent.interpreters", "string.templatelib"})
"""Of the standard library of `GUEST_PYTHON`; 3.13 has none of these."""
_PROBE = "import sys, inferlet._native.__main__; print(*sys.version_info[:2])"
_GUEST = ".".join(map(str, GUEST_PYTHON))
_INSTALL = f"install it, for instance with `uv python install {_GUEST}`, or name one with `--python`"


@dataclass(frozen=True)
class Python:
    """An interpreter that can run the SDK."""

    path: str
    version: tuple[int, int]

    @property
    def is_older(self) -> bool:
        """Than the sandbox's."""
        return self.version < GUEST_PYTHON

    @property
    def label(self) -> str:
        return ".".join(map(str, self.version))


def find_python(sdk: Path, wanted: str | None) -> Python:
    """The one that `wanted` names; else one of the sandbox's version; else our own, and a note says so.

    sdk: a folder with the package `inferlet`. Raises `InvalidInput` for a `wanted` that cannot run it.
    """
    if wanted is not None:
        return _wanted(sdk, wanted)
    own = Python(sys.executable, (sys.version_info.major, sys.version_info.minor))
    if not own.is_older:
        return own
    for path in _places():
        found = _probed(sdk, path)
        if found is not None:
            return found
    console.note(f"note: programs run in Python {_GUEST}; this one is debugged in {own.label}, for want of a newer one")
    return own


def check_debugpy(python: Python) -> None:
    """Raises `Unsupported` with the command that installs it."""
    if _run(python.path, "import debugpy") is None:
        raise Unsupported(
            f"`--listen` needs debugpy, which {python.path} does not have",
            hint=f"`{shlex.quote(python.path)} -m pip install debugpy`",
        )


def check_sources(python: Python, files: Mapping[str, str]) -> None:
    """Raises `InvalidProgram` for what an older Python cannot run, with file and line. The sandbox's has parsed it."""
    if not python.is_older or python.path != sys.executable:
        return  # another one says by itself what it cannot parse
    for path, text in files.items():
        if path.endswith(".py"):
            _check_source(python, path, text)


def _check_source(python: Python, path: str, text: str) -> None:
    try:
        tree = ast.parse(text.removeprefix("\ufeff"), path)
    except SyntaxError as error:
        message = f"{path}, line {error.lineno}: Python {python.label} cannot parse this: {error.msg}"
        raise InvalidProgram(message, hint=f"the sandbox's {_GUEST} can: {_INSTALL}") from None
    for node in ast.walk(tree):
        for name in _imported(node):
            newer = next((each for each in NEWER_MODULES if f"{name}.".startswith(f"{each}.")), None)
            if newer is not None:
                message = f"{path}, line {node.lineno}: Python {python.label} has no module `{newer}`"  # type: ignore[attr-defined]
                raise InvalidProgram(message, hint=f"the sandbox's {_GUEST} has: {_INSTALL}")


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _wanted(sdk: Path, wanted: str) -> Python:
    path = shutil.which(os.path.expanduser(wanted))
    if path is None:
        raise InvalidInput(f"there is no Python `{wanted}`", hint="give a path, or a name on PATH")
    found = _probed(sdk, path)
    if found is None:
        raise InvalidInput(f"{path} cannot run a program: it is no Python of {'.'.join(map(str, OLDEST))} or later")
    return found


def _probed(sdk: Path, path: str) -> Python | None:
    """None when it is no Python, or one that cannot run the SDK."""
    said = _run(path, _PROBE, sdk)
    if said is None:
        return None
    major, minor = map(int, said.split())
    return Python(path, (major, minor))


def _run(path: str, code: str, sdk: Path | None = None) -> str | None:
    """What it prints; None when it fails."""
    env = {**os.environ, "PYTHONPATH": str(sdk)} if sdk else None
    try:
        done = subprocess.run(
            [path, "-P", "-c", code], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _places() -> Iterator[str]:
    """Where Pythons of the sandbox's version are: PATH, pyenv, uv."""
    on_path = shutil.which(f"python{_GUEST}")
    if on_path:
        yield on_path
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    uv = os.environ.get("UV_PYTHON_INSTALL_DIR") or os.path.expanduser("~/.local/share/uv/python")
    for pattern in (f"{pyenv}/versions/{_GUEST}.*/bin/python", f"{uv}/cpython-{_GUEST}.*/bin/python{_GUEST}"):
        yield from sorted(glob.glob(pattern), reverse=True)
