"""The work of `pie test`: pytest with Pie's plugin on the tests of programs."""

from __future__ import annotations

import importlib.util
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from pie_cli import console, exits
from pie_engine.errors import InvalidInput, NotFound, PieError

PLUGINS = ("pie_testing.plugin", "pie_testing.quiet")
INSTALL_HINT = 'install Pie with its extra `test`: pip install "pie-serving[test]"'
_TEST_FILES = ("test_*.py", "*_test.py")
# As pytest's ExitCode has them; it is not imported for help and for wrong usage.
_ALL_PASSED, _FAILED, _INTERRUPTED, _INTERNAL, _USAGE, _NO_TESTS = range(6)


class NotInstalled(PieError):
    """The extra that holds pytest is missing."""

    code = "not_installed"


@dataclass(frozen=True)
class Wanted:
    """What the command line says."""

    targets: list[str] = field(default_factory=list)
    keyword: str = ""
    junit: Path | None = None
    update: bool = False
    replays: list[Path] = field(default_factory=list)
    engine: str = "embedded"
    model: str = ""
    built: bool = False
    pytest_args: list[str] = field(default_factory=list)


def run_wanted(wanted: Wanted) -> int:
    """Run them; returns the exit code. Raises `NotFound`, `InvalidProgram` for a broken pie.toml, `InvalidInput`, and
    `NotInstalled`."""
    targets = wanted.targets or ["."]
    for target in targets:
        _check_target(target, is_replay=bool(wanted.replays))
    for recording in wanted.replays:
        if not recording.is_file():
            raise NotFound(f"there is no recording `{recording}`", hint="`pie run --record FILE` makes one")
    if wanted.junit is not None and not wanted.junit.absolute().parent.is_dir():
        raise InvalidInput(f"cannot write `{wanted.junit}`: its folder does not exist")
    if importlib.util.find_spec("pytest") is None:
        raise NotInstalled("pytest is not installed", hint=INSTALL_HINT)
    return _exit_code(_run_pytest(arguments_of(wanted)), wanted)


def arguments_of(wanted: Wanted) -> list[str]:
    """Pytest's arguments."""
    # Test files of several programs may have one name.
    args = [word for plugin in PLUGINS for word in ("-p", plugin)]
    args += ["--import-mode=importlib", f"--pie-engine={wanted.engine}"]
    args += ["-k", wanted.keyword] if wanted.keyword else []
    args += [f"--junitxml={wanted.junit}"] if wanted.junit is not None else []
    args += ["--pie-update"] if wanted.update else []
    args += [f"--pie-model={wanted.model}"] if wanted.model else []
    args += ["--pie-built"] if wanted.built else []
    args += [f"--pie-replay={recording}" for recording in wanted.replays]
    return [*args, *wanted.pytest_args, *(wanted.targets or ["."])]


def _check_target(target: str, *, is_replay: bool) -> None:
    """A folder that has tests, or a test file (`FILE::TEST` for one test of it)."""
    path = Path(os.path.expanduser(target.partition("::")[0]))
    if not path.exists():
        raise NotFound(f"there is no file or folder `{path}`", hint="give the folder of a program, or a test file")
    if path.is_file():
        if path.suffix != ".py":
            raise InvalidInput(f"`{path}` is no test file", hint="give the folder of a program, or a `test_*.py`")
        return
    from pie_client.manifest import MANIFEST_FILE, read_manifest

    if (path / MANIFEST_FILE).exists():
        read_manifest(path)
    if not is_replay and not any(next(path.rglob(pattern), None) for pattern in _TEST_FILES):
        where = path / "tests" / "test_main.py"
        raise NotFound(f"there are no tests in `{path}`", hint=f"write {where}; `pie new` makes programs with tests")


def _run_pytest(args: list[str]) -> int:
    import pytest

    # From here on there is something to clean up, which pytest does.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return int(pytest.main(args))
    finally:
        signal.signal(signal.SIGINT, before)


def _exit_code(code: int, wanted: Wanted) -> int:
    if code == _NO_TESTS:
        what = f"no test matches `-k {wanted.keyword}`" if wanted.keyword else "no tests were found"
        console.error(what, "test files are called `test_*.py`, and tests `def test_…`")
        return exits.NOT_FOUND
    return {
        _ALL_PASSED: exits.OK,
        _INTERRUPTED: exits.INTERRUPTED,
        _USAGE: exits.USAGE,
    }.get(code, exits.PROGRAM_FAILED)
