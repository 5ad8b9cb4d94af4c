"""Start-up is a feature: what `pie` imports, and that its pages are what the code says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pie_cli import docs
from pie_cli.main import invoke

Capture = pytest.CaptureFixture[str]
SLOW = {"asyncio", "httpx", "msgspec", "pydantic", "rich", "torch", "pie_client", "importlib.metadata"}


def imported_by(*words: str) -> set[str]:
    """Names of all modules that a command line imports."""
    command = [sys.executable, "-X", "importtime", "-m", "pie_cli", *words]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr.splitlines()
    return {line.rsplit("|", 1)[-1].strip() for line in lines if line.startswith("import time:")}


def test_help_imports_nothing_slow() -> None:
    assert imported_by("--help") & SLOW == set()


def test_run_imports_only_what_it_needs() -> None:
    modules = imported_by("run", "./no-such-program")
    assert modules & {"typer", "pydantic", "rich", "click", "torch"} == set()


def test_what_only_talks_to_the_daemon_imports_neither_pydantic_nor_engine(tmp_path: Path) -> None:
    """Each of these is asked often, and waits for its imports longer than for the daemon."""
    verbs = [
        ["ps"],
        ["logs", "x"],
        ["attach", "x"],
        ["send", "x", "y"],
        ["kill", "x"],
        ["stop"],
        ["context", "list"],
        ["adapter", "list"],
        ["model", "list"],
    ]
    code = f"from pie_cli.main import invoke\nfor words in {verbs}: invoke(words)\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PIE_HOME": str(tmp_path)},
    )
    assert done.stderr.count("no daemon is running") >= 4, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "pie_client.client" in loaded
    heavy = {"pydantic", "rich", "httpx", "fastapi", "numpy", "torch", "tokenizers", "jinja2", "wasmtime", "zmq"}
    assert heavy & loaded == set()


@pytest.mark.parametrize("days", ["soon", "-1"])
def test_values_that_are_no_texts_are_still_converted(days: str, capsys: Capture) -> None:
    assert invoke(["gc", "--older-than", days]) == 2
    assert capsys.readouterr().err.startswith("error: invalid value for '--older-than'")


def test_version(capsys: Capture) -> None:
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pie ")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["runn"], "error: no such command 'runn'. Did you mean 'run'?\nhint: see `pie --help`\n"),
        (["ps", "--foo"], "error: no such option: --foo\nhint: see `pie ps --help`\n"),
        (["logs"], "error: missing argument 'PID'\nhint: see `pie logs --help`\n"),
        (
            ["run"],
            "error: TARGET is missing: a folder, a file or the name of an uploaded program\n"
            "hint: see `pie run --help`\n",
        ),
    ],
)
def test_wrong_usage_exits_2_with_a_hint(words: list[str], text: str, capsys: Capture) -> None:
    assert invoke(words) == 2
    assert capsys.readouterr().err == text


def test_help_names_the_exit_codes(capsys: Capture) -> None:
    assert invoke(["--help"]) == 0
    assert "Exit codes: 0 success; 1 the program failed" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "page"), docs.PAGES.items())
def test_pages_are_what_the_code_says(name: str, page: docs.Page) -> None:
    path = Path(__file__).parents[2] / "docs" / name
    assert path.read_text("utf-8") == page(), "`make docs` writes them anew"
