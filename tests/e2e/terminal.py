"""A command of `pie` in the foreground of a terminal of its own."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from typing import Any

PATIENCE_S = 60
LOOK_S = 0.1
_ON_TERMINAL = """
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("pie_cli", run_name="__main__")
"""
"""A new session has no terminal until it takes one."""


class OnTerminal:
    """What it says is read by `until`; keys are pressed. A context manager that leaves nothing running."""

    def __init__(self, daemon: Any, *words: str, kind: str = "dumb", lines: int = 24, columns: int = 80) -> None:
        """`kind`: what TERM is."""
        self.ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (lines, columns))
        self.before = termios.tcgetattr(self.theirs)
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.theirs)
        command = [sys.executable, "-c", _ON_TERMINAL, *words]
        env = {**daemon.env, "NO_COLOR": "1", "TERM": kind}
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
        end = time.monotonic() + PATIENCE_S
        while text not in self._said:
            has_left = self.process.poll() is not None
            is_late = time.monotonic() > end
            assert self._read() or not (has_left or is_late), f"`{text}` did not come, but: {self._said[-2000:]}"
        before, found, self._said = self._said.partition(text)
        return before + found

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def end(self) -> int:
        """Its exit status, once it has left by itself; the terminal must be as it was."""
        end = time.monotonic() + PATIENCE_S
        # What nobody reads would hold it up.
        while self._read() or self.process.poll() is None:
            assert time.monotonic() < end, f"it goes on: {self._said[-2000:]}"
        assert termios.tcgetattr(self.theirs) == self.before
        return self.process.wait()

    @property
    def rest(self) -> str:
        """What it has said since the last `until`; all of it after `end`."""
        return self._said

    def _read(self) -> bool:
        """Whether something has come, within a moment."""
        is_ready, _, _ = select.select([self.ours], [], [], LOOK_S)
        if is_ready:
            self._said += os.read(self.ours, 65536).decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(is_ready)
