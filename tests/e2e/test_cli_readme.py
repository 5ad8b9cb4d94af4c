"""The README does not lie: its session can be typed, and its program runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pages import checked_by

README = Path(__file__).parents[2] / "README.md"
MAX_LINES = 120


def blocks(language: str) -> list[str]:
    return [block.text for block in checked_by(__file__) if block.language == language]


def session() -> list[tuple[str, list[str]]]:
    """The commands of the console block, each with what is shown below it."""
    (text,) = [block for block in blocks("console") if "pie new" in block]
    parts = [part.splitlines() for part in text.split("$ ")[1:]]
    return [(lines[0], lines[1:]) for lines in parts]


def without_start(lines: list[str]) -> list[str]:
    """The tests' daemon runs already."""
    return [line for line in lines if not line.startswith(("starting the", "loading "))]


def test_it_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= MAX_LINES


def test_its_session_can_be_typed(daemon: Any, tmp_path: Path) -> None:
    for command, expected in session():
        line = re.sub(r"^pie ", f"{sys.executable} -m pie_cli ", command)
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, env=daemon.env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        shown = (done.stdout + done.stderr).splitlines()
        # What a model says depends on its weights; how much is said, and every word of ours, does not.
        assert len(shown) == len(without_start(expected)), (command, shown)
        if "hint:" in "".join(expected) or command.startswith("pie new"):
            assert shown == expected, command


def test_its_program_runs(daemon: Any, tmp_path: Path) -> None:
    (program,) = [block for block in blocks("python") if "async def main" in block]
    (tmp_path / "program.py").write_text(program)
    done = daemon.pie("run", str(tmp_path / "program.py"), "Hello!", "--n", "2")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert '{"answers": [' in done.stdout


def test_its_client_is_the_first_program_of_the_clients_page() -> None:
    (program,) = [block for block in blocks("python") if "PieClient" in block]
    assert program in (README.parent / "docs" / "python-client.md").read_text("utf-8")
