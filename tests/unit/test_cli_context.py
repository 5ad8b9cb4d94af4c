"""`pie context` against a stand-in of the daemon. With the daemon: `tests/integration/test_context_files.py`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_cli.main import invoke
from pie_engine.config import load_config
from tests.unit.cli_standin import StandIn, short_home

COMMAND = [sys.executable, "-m", "pie_cli", "context"]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with short_home(monkeypatch), StandIn(load_config().paths.api_socket) as standin:
        yield standin


def test_ctrl_c_in_an_export_leaves_no_half_file(daemon: StandIn, tmp_path: Path) -> None:
    daemon.contexts_stall = True
    target = tmp_path / "tale"
    target.write_text("the old one")
    command = [*COMMAND, "export", "tale", str(target), "--replace"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    while time.monotonic() < end and len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.01)
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["tale"]
    assert target.read_text() == "the old one"


@pytest.mark.parametrize(
    "words", [["list"], ["info", "x"], ["export", "x", "y"], ["import", __file__], ["remove", "x"]]
)
def test_without_a_daemon_every_verb_says_so(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with short_home(monkeypatch):
        assert invoke(["context", *words]) == 3
    assert capsys.readouterr().err.startswith("error: no daemon")


@pytest.mark.parametrize("words", [["info"], ["export", "x"], ["import"], ["remove"], ["list", "x"], ["copy", "x"]])
def test_wrong_words_are_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["context", *words]) == 2
    assert "error: " in capsys.readouterr().err
