"""A peer's server: started on a free loopback port in a process group of its own, and ended with all of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from common import exit_on_sigterm

LOOPBACK = "127.0.0.1"
POLL_S = 0.2
END_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


@contextmanager
def server(
    command: Sequence[str],
    port: int,
    env: Mapping[str, str] | None = None,
    *,
    log_file: Path | None = None,
    timeout_s: float = 600.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the end of the block; enter it when `GET /health` answers 200.

    `env` is added to this process's environment; what the server prints goes to `log_file`, if one is given. Raises
    `SystemExit` with the end of what it printed when it exits or is not ready in time. SIGTERM to this process ends
    the server too.
    """
    exit_on_sigterm()
    with log_file.open("w+b") if log_file else tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_ready(process, port, log, timeout_s)
            yield process
        finally:
            _end_group(process)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: IO[bytes], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not _is_healthy(port):
        if process.poll() is not None:
            raise SystemExit(f"the server exited with {process.returncode}:\n{_tail(log)}")
        if time.monotonic() > end:
            raise SystemExit(f"the server was not ready within {timeout_s:g} s:\n{_tail(log)}")
        time.sleep(POLL_S)


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/health", timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _tail(log: IO[bytes], num_lines: int = 30) -> str:
    log.seek(0)
    return b"\n".join(log.read().splitlines()[-num_lines:]).decode(errors="replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children: they are in a group of their own, whose number is the process's."""
    for number, patience_s in ((signal.SIGTERM, END_S), (signal.SIGKILL, END_S)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        if _has_ended(process, patience_s):
            break
    process.wait()


def _has_ended(process: subprocess.Popen[bytes], patience_s: float) -> bool:
    """Whether the whole group is gone."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
