"""`pie upload`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def greeter(tmp_path: Path) -> Path:
    (tmp_path / "pie.toml").write_text('[program]\nname = "uploaded-greeter"\nversion = "1.2.0"\n')
    (tmp_path / "main.py").write_text('async def main(name: str) -> str:\n    return f"Hello {name}"\n')
    return tmp_path


def test_what_is_uploaded_runs_by_its_name_from_anywhere(daemon: Any, greeter: Path) -> None:
    done = daemon.pie("upload", str(greeter))
    assert (done.returncode, done.stdout) == (0, "uploaded-greeter@1.2.0\n")
    ran = daemon.pie("run", "uploaded-greeter", "--name", "Zoe")
    assert ran.stdout == "Hello Zoe\n"
    assert "running the uploaded uploaded-greeter@1.2.0" in ran.stderr


def test_the_same_version_again_takes_the_place_of_what_was_there(daemon: Any, greeter: Path) -> None:
    first = json.loads(daemon.pie("upload", str(greeter), "--json").stdout)
    (greeter / "main.py").write_text('async def main(name: str) -> str:\n    return f"Bye {name}"\n')
    second = json.loads(daemon.pie("upload", str(greeter), "--json").stdout)
    assert [each["version"] for each in (first, second)] == ["1.2.0", "1.2.0"]
    assert first["digest"] != second["digest"]
    assert daemon.pie("run", "uploaded-greeter", "--name", "Zoe").stdout == "Bye Zoe\n"


@pytest.mark.parametrize(
    ("target", "message"),
    [("nobody", "`nobody` is neither a file nor a folder"), ("./nobody", "there is no file or folder `./nobody`")],
)
def test_what_is_not_there_is_refused(daemon: Any, target: str, message: str) -> None:
    done = daemon.pie("upload", target)
    assert (done.returncode, done.stdout) == (4, "")
    assert message in done.stderr


def test_a_program_that_cannot_run_is_refused_and_not_kept(daemon: Any, greeter: Path) -> None:
    (greeter / "pie.toml").write_text('[program]\nname = "uploaded-broken"\nversion = "1.2.0"\n')
    (greeter / "main.py").write_text("async def main(:\n")
    done = daemon.pie("upload", str(greeter))
    assert done.returncode == 2
    assert "main.py" in done.stderr
    assert daemon.pie("run", "uploaded-broken").returncode == 4
