"""`pie monitor` on a terminal, over a real daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pie_cli.monitor.recording import read
from tests.e2e.terminal import OnTerminal


def monitored(daemon: Any, *words: str) -> OnTerminal:
    return OnTerminal(daemon, "monitor", *words, kind="xterm-256color", lines=30, columns=100)


@pytest.mark.slow
def test_the_monitor_shows_a_daemon_records_it_and_leaves_it_running(daemon: Any, tmp_path: Path) -> None:
    recording = tmp_path / "stats.jsonl"
    with monitored(daemon, "--interval", "0.2", "--record", str(recording)) as terminal:
        if "live" not in terminal.until("pie-tiny"):
            terminal.until("live")
        terminal.press("5")
        terminal.until("host-0")
        terminal.press("q")
        assert terminal.end() == 0
        assert f"snapshots in {recording}" in terminal.rest
    assert daemon.pie("ps").returncode == 0
    snapshots = list(read(recording))
    assert snapshots[0].models[0].name == "pie-tiny"
    with monitored(daemon, "--replay", str(recording), "--speed", "50") as again:
        again.until("the recording has ended")
        again.press("q")
        assert again.end() == 0
