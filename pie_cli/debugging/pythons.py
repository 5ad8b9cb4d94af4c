"""Which Python a program is debugged in: one of the sandbox's version, or else our own, with what it lacks."""

from __future__ import annotations

import glob
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pie_cli import console
from pie_cli.debugging import lint
from pie_engine.errors import InvalidInput, InvalidProgram, Unsupported
from pie_engine.protocol.program import GUEST_PYTHON

PROBE_S = 20.0
OLDEST = (3, 11)
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


def find_python(sdk: Path, wanted: str | None, *, needs_debugpy: bool = False) -> Python:
    """The one that `wanted` names; else one of the sandbox's version; else the newest there is, and a note says so.

    sdk: a folder with the package `inferlet`. needs_debugpy: one that has it comes before newer ones that do not.
    Raises `InvalidInput` for a `wanted` that cannot run the SDK.
    """
    if wanted is not None:
        return _wanted(sdk, wanted)
    own = Python(sys.executable, (sys.version_info.major, sys.version_info.minor))
    if not own.is_older:
        return own
    newer = (found for path in _places() if (found := _probed(sdk, path)) is not None)
    there = [*newer, own] if needs_debugpy else [next(newer, own)]
    found = next(filter(_has_debugpy, there), there[0]) if needs_debugpy else there[0]
    if found.is_older:
        console.note(
            f"note: programs run in Python {_GUEST}; this one is debugged in {found.label}, for want of a newer one"
        )
    return found


def check_debugpy(python: Python) -> None:
    """Raises `Unsupported` with the command that installs it."""
    if not _has_debugpy(python):
        raise Unsupported(
            f"`--listen` needs debugpy, which {python.path} does not have",
            hint=f"`{shlex.quote(python.path)} -m pip install debugpy`",
        )


def _has_debugpy(python: Python) -> bool:
    return _run(python.path, "-c", "import debugpy") is not None


def check_sources(python: Python, files: Mapping[str, str]) -> None:
    """Raises `InvalidProgram` for what an older Python cannot run, with file and line. The sandbox's has parsed it."""
    if not python.is_older:
        return
    problem = _problem(python, {path: text for path, text in files.items() if path.endswith(".py")})
    if problem is not None:
        message = f"{problem.path}, line {problem.line}: Python {python.label} {problem.what}"
        raise InvalidProgram(message, hint=f"the sandbox's {_GUEST} {problem.but}: {_INSTALL}")


def _problem(python: Python, files: Mapping[str, str]) -> lint.Problem | None:
    if python.path == sys.executable:
        return lint.problem_in(files)
    said = _run(python.path, lint.__file__, stdin=json.dumps(files))
    found = None if said is None else json.loads(said)
    return None if found is None else lint.Problem(*found)


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
    said = _run(path, "-c", _PROBE, sdk=sdk)
    if said is None:
        return None
    major, minor = map(int, said.split())
    return Python(path, (major, minor))


def _run(path: str, *words: str, sdk: Path | None = None, stdin: str = "") -> str | None:
    """What it prints; None when it fails."""
    env = {**os.environ, "PYTHONPATH": str(sdk)} if sdk else None
    try:
        done = subprocess.run(
            [path, "-P", *words], env=env, input=stdin, capture_output=True, text=True, timeout=PROBE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _places() -> Iterator[str]:
    """Where Pythons newer than ours are, those of the sandbox's version first: PATH, pyenv, uv."""
    major, minor = GUEST_PYTHON
    for newer in range(minor, sys.version_info.minor, -1):
        yield from _places_of(f"{major}.{newer}")


def _places_of(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield on_path
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    uv = os.environ.get("UV_PYTHON_INSTALL_DIR") or os.path.expanduser("~/.local/share/uv/python")
    for pattern in (f"{pyenv}/versions/{version}.*/bin/python", f"{uv}/cpython-{version}.*/bin/python{version}"):
        yield from sorted(glob.glob(pattern), reverse=True)
