"""Which Python a program is debugged in, and what an older one is told about it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pie_cli.debugging import pythons
from pie_cli.debugging.pythons import Python, check_debugpy, check_sources, find_python
from pie_engine.errors import InvalidInput, InvalidProgram, Unsupported

OWN = (sys.version_info.major, sys.version_info.minor)
NEWER, NEWEST = (OWN[0], OWN[1] + 1), (OWN[0], OWN[1] + 2)
OLD = Python(sys.executable, (3, 11))


def fake_python(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(monkeypatch, tmp_path) -> Path:
    """Nothing on PATH, in pyenv's and in uv's folders; we are older than the sandbox."""
    monkeypatch.setattr(pythons, "GUEST_PYTHON", NEWEST)
    for name in ("PATH", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def test_without_a_newer_one_ours_is_taken_and_a_note_says_so(bare, capsys):
    assert find_python(bare, None).path == sys.executable
    assert "for want of a newer one" in capsys.readouterr().err


def named(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


@pytest.mark.parametrize(
    "place",
    ["PATH/python{}", "PYENV_ROOT/versions/{}.1/bin/python", "UV_PYTHON_INSTALL_DIR/cpython-{}.0-x/bin/python{}"],
)
def test_one_of_the_version_of_the_sandbox_is_found(bare, place, capsys):
    fake_python(bare / f"PATH/python{named(NEWER)}", f"echo {NEWER[0]} {NEWER[1]}")
    path = fake_python(bare / place.replace("{}", named(NEWEST)), f"echo {NEWEST[0]} {NEWEST[1]}")
    assert find_python(bare, None) == Python(str(path), NEWEST)
    assert capsys.readouterr().err == ""


def test_one_that_is_newer_than_ours_is_better_than_ours(bare, capsys):
    path = fake_python(bare / f"PYENV_ROOT/versions/{named(NEWER)}.3/bin/python", f"echo {NEWER[0]} {NEWER[1]}")
    assert find_python(bare, None) == Python(str(path), NEWER)
    assert f"this one is debugged in {named(NEWER)}" in capsys.readouterr().err


def test_for_an_ide_one_with_debugpy_comes_first(bare):
    newer = fake_python(
        bare / f"PATH/python{named(NEWEST)}", f'case "$*" in *debugpy*) exit 1;; esac; echo {NEWEST[0]} {NEWEST[1]}'
    )
    assert find_python(bare, None).path == str(newer)
    has_it = fake_python(bare / f"PATH/python{named(NEWER)}", f"echo {NEWER[0]} {NEWER[1]}")
    assert find_python(bare, None, needs_debugpy=True).path == str(has_it)


def test_one_that_cannot_run_the_sdk_is_passed_over(bare):
    fake_python(bare / f"PATH/python{named(NEWEST)}", "exit 1")
    good = fake_python(bare / f"PYENV_ROOT/versions/{named(NEWEST)}.1/bin/python", f"echo {NEWEST[0]} {NEWEST[1]}")
    assert find_python(bare, None).path == str(good)


def test_where_we_are_as_new_nobody_else_is_asked(bare, monkeypatch):
    monkeypatch.setattr(pythons, "GUEST_PYTHON", OWN)
    fake_python(bare / f"PATH/python{named(NEWER)}", f"echo {NEWER[0]} {NEWER[1]}")
    assert find_python(bare, None) == Python(sys.executable, OWN)


def test_the_one_that_is_asked_for_is_taken(bare):
    path = fake_python(bare / "mine", "echo 3 12")
    assert find_python(bare, str(path)) == Python(str(path), (3, 12))


def test_one_that_is_asked_for_has_to_work(bare):
    with pytest.raises(InvalidInput, match="there is no Python `nothing`"):
        find_python(bare, "nothing")
    with pytest.raises(InvalidInput, match="cannot run a program"):
        find_python(bare, str(fake_python(bare / "ls", "exit 1")))


def test_a_debugger_that_is_missing_comes_with_the_command_that_installs_it(bare):
    path = fake_python(bare / "old python", "exit 1")
    with pytest.raises(Unsupported) as caught:
        check_debugpy(Python(str(path), (3, 14)))
    assert caught.value.hint == f"`'{path}' -m pip install debugpy`"
    check_debugpy(Python(str(fake_python(path, "exit 0")), (3, 14)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ndef f(:\n", "pkg/a.py, line 2: Python 3.11 cannot parse this"),
        (
            "import json\nfrom string.templatelib import Template\n",
            "pkg/a.py, line 2: Python 3.11 has no module `string.t",
        ),
        ("from string import templatelib\n", "line 1: Python 3.11 has no module `string.templatelib`"),
        ("import compression.zstd as zstd\n", "has no module `compression`"),
    ],
)
@pytest.mark.parametrize("is_own", [True, False])
def test_what_an_older_python_cannot_run_is_found_with_file_and_line(tmp_path, source, message, is_own):
    other = fake_python(tmp_path / "python", f'exec "{sys.executable}" "$@"')
    python = OLD if is_own else Python(str(other), (3, 11))
    with pytest.raises(InvalidProgram) as caught:
        check_sources(python, {"main.py": "import string\n", "pkg/a.py": source, "text.txt": "no ( code"})
    assert message in caught.value.message
    assert "`uv python install 3.14`" in caught.value.hint


def test_what_every_python_can_run_is_fine():
    check_sources(OLD, {"main.py": "\ufeffimport string, compressions\nfrom . import compression\n"})
    check_sources(Python(sys.executable, (3, 14)), {"main.py": "def f(:"})
