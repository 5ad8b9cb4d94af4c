"""`pie monitor` and `pie serve --monitor` before anything is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pie_cli.main import invoke
from pie_cli.monitor import running

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("words", [["monitor"], ["serve", "--monitor"], ["monitor", "--replay", "x"]])
def test_without_a_terminal_it_names_what_prints_the_same(words: list[str], capsys: Capture) -> None:
    assert invoke(words) != 0
    assert capsys.readouterr().err == (
        "error: the monitor needs a terminal, and here is none\n"
        "hint: `pie stats` and `pie stats --json` print the same\n"
    )


def test_a_terminal_that_cannot_move_its_cursor_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert invoke(["monitor"]) != 0
    assert capsys.readouterr().err == (
        "error: the monitor needs a terminal that moves its cursor, and `TERM` says `dumb`\n"
        "hint: set `TERM` to what it is, as `xterm-256color`; `pie stats` prints the same\n"
    )


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "require_terminal", lambda: None)


@pytest.mark.usefixtures("terminal")
def test_a_recording_and_an_engine_are_not_shown_at_once(capsys: Capture) -> None:
    assert invoke(["monitor", "--replay", "x", "--record", "y"]) == 2
    assert "`--replay` shows a file; `--record` needs an engine" in capsys.readouterr().err
    assert invoke(["monitor", "--speed", "0"]) == 2
    assert invoke(["monitor", "--interval", "0.01"]) == 2


@pytest.mark.usefixtures("terminal")
def test_what_is_no_recording_is_refused_before_anything_is_drawn(tmp_path: Path, capsys: Capture) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert invoke(["monitor", "--replay", str(empty)]) == 2
    assert "holds no snapshots" in capsys.readouterr().err
    assert invoke(["monitor", "--replay", str(tmp_path / "none")]) == 2
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.usefixtures("terminal")
def test_without_a_daemon_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("PIE_HOME", str(tmp_path))
    assert invoke(["monitor"]) != 0
    assert "error: no daemon is running" in capsys.readouterr().err


def test_a_daemon_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "require_terminal", lambda: None)
    assert invoke(["monitor", "--url", "http://127.0.0.1:1"]) == 3
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: no daemon answers at http://127.0.0.1:1"
    assert "pie serve --listen" in hint


def test_only_the_monitor_imports_textual(tmp_path: Path) -> None:
    """It takes longer to import than most commands take to run."""
    code = (
        "import sys\nfrom pie_cli.main import invoke\n"
        "for words in (['--version'], ['ps'], ['serve', '--monitor'], ['monitor']): invoke(words)\n"
        "print('textual' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
