"""One child process: born with a line of JSON, its output drained into a log, its death put into words."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pie_engine.protocol.to_daemon import Birth, Role
from pie_engine.supervise.logs import LastLines, RotatingLog

READ_BYTES = 65536


class ChildProcess:
    """From spawn to reap. `output` is the reading end of its stdout and stderr."""

    def __init__(
        self,
        command: Sequence[str],
        role: Role,
        name: str,
        run: Path,
        daemon: str,
        config: dict[str, object],
        user: str = "",
    ) -> None:
        self.boot_id = secrets.token_hex(8)
        self.socket = run / f"{role}-{self.boot_id[:8]}.sock"
        self.address = f"ipc://{self.socket}"
        self.was_killed = False
        """By us."""
        self._last_lines = LastLines()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.output = self._process.stdout.fileno()
        os.set_blocking(self.output, False)
        self._say_birth(Birth(role, name, self.boot_id, self.address, daemon, config, user))

    @property
    def os_pid(self) -> int:
        return self._process.pid

    @property
    def last_lines(self) -> list[str]:
        return self._last_lines.lines()

    def has_exited(self) -> bool:
        return self._process.poll() is not None

    @property
    def exit_status(self) -> int:
        assert self._process.returncode is not None
        return self._process.returncode

    def drain(self, log: RotatingLog) -> bool:
        """Logs what it has written; False at the end of it."""
        while True:
            try:
                data = os.read(self.output, READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._last_lines.feed(data)
            log.write(data)

    def kill(self) -> None:
        self.was_killed = True
        self._process.kill()

    def bury(self) -> None:
        """After it has exited: close the pipes and remove its socket."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self.socket.unlink(missing_ok=True)

    def _say_birth(self, birth: Birth) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(birth) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # It died at once; the reaper says so.
            return


def exit_reason(status: int) -> str:
    """`killed by SIGKILL`, `exit status 1`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
