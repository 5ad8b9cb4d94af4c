"""A command of `pie` in the foreground of a terminal of its own."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
from typing import Any

PATIENCE_S = 60
_ON_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from pie_cli.main import invoke
sys.exit(invoke(sys.argv[1:]))
"""
"""A new session has no terminal until it takes one."""


class OnTerminal:
    """What it says is read by `until`; keys are pressed. A context manager that leaves nothing running."""

    def __init__(self, daemon: Any, *words: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.theirs)
        command = [sys.executable, "-c", _ON_TERMINAL, *words]
        env = {**daemon.env, "NO_COLOR": "1"}
        self.process = subprocess.Popen(command, env=env, start_new_session=True, **streams)
        self._said = ""

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def until(self, text: str) -> str:
        """What it says up to and with `text`, since the last time."""
        while text not in self._said:
            is_ready, _, _ = select.select([self.ours], [], [], PATIENCE_S)
            assert is_ready, f"`{text}` did not come, but: {self._said}"
            self._said += os.read(self.ours, 65536).decode().replace("\r\n", "\n")
        before, found, self._said = self._said.partition(text)
        return before + found

    def press(self, key: bytes) -> None:
        os.write(self.ours, key)

    def end(self) -> int:
        """Its exit status, once it has left by itself; the terminal must be as it was."""
        status = self.process.wait(30)
        assert termios.tcgetattr(self.theirs) == self.before
        return status
