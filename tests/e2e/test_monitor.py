"""`pie monitor` on a terminal, over a real daemon."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

import pytest

from pie_cli.monitor.recording import read


class Terminal:
    """A command on a pseudo-terminal of 100 columns and 30 lines."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self.seen = ""
        self.os_pid, self._fd = pty.fork()
        if self.os_pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "pie_cli", *words], {**env, "TERM": "xterm-256color"})
        ioctl(self._fd, TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def press(self, keys: str) -> None:
        self.seen = ""
        os.write(self._fd, keys.encode())

    def wait_for(self, text: str, timeout_s: float = 60.0) -> None:
        self._read_until(lambda: text in self.seen, timeout_s, text)

    def end(self) -> int:
        """The exit code, once it has left by itself."""
        self._read_until(lambda: False, 60.0, "")
        return os.waitstatus_to_exitcode(os.waitpid(self.os_pid, 0)[1])

    def _read_until(self, is_done: Callable[[], bool], timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not is_done():
            assert time.monotonic() < end, f"no `{what}` in {self.seen[-2000:]!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._fd, 1 << 16).decode("utf-8", "replace")
                except OSError:
                    return


@pytest.mark.slow
def test_the_monitor_shows_a_daemon_records_it_and_leaves_it_running(daemon: Any, tmp_path: Path) -> None:
    recording = tmp_path / "stats.jsonl"
    terminal = Terminal(["monitor", "--interval", "0.2", "--record", str(recording)], daemon.env)
    try:
        terminal.wait_for("pie-tiny")
        terminal.wait_for("live")
        terminal.press("5")
        terminal.wait_for("host-0")
        terminal.press("q")
        assert terminal.end() == 0
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(terminal.os_pid, signal.SIGKILL)
    assert f"snapshots in {recording}" in terminal.seen
    assert daemon.pie("ps").returncode == 0
    snapshots = list(read(recording))
    assert snapshots[0].models[0].name == "pie-tiny"
    again = Terminal(["monitor", "--replay", str(recording), "--speed", "50"], daemon.env)
    again.wait_for("the recording has ended")
    again.press("q")
    assert again.end() == 0
