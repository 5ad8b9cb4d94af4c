"""Log files of children, rotated by size, and their last lines for incidents."""

from __future__ import annotations

from collections import deque
from pathlib import Path

MAX_LOG_BYTES = 5 * 1024 * 1024
NUM_OLD_LOGS = 2
NUM_LAST_LINES = 20
MAX_LINE_CHARACTERS = 500


class RotatingLog:
    """Appends to `path`; past `MAX_LOG_BYTES` it becomes `path.1`, that one `path.2`.

    A log that cannot be written (full disk) loses lines, never the daemon.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        try:
            if self._file.tell() + len(data) > self._max_bytes:
                self._rotate()
            self._file.write(data)
        except OSError:
            return

    def close(self) -> None:
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(NUM_OLD_LOGS, 0, -1):
            newer = self._numbered(number - 1) if number > 1 else self._path
            if newer.exists():
                newer.replace(self._numbered(number))
        self._file = self._path.open("ab", buffering=0)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class LastLines:
    """The newest lines of a byte stream."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=NUM_LAST_LINES)
        self._open = b""

    def feed(self, data: bytes) -> None:
        *whole, self._open = (self._open + data).split(b"\n")
        self._open = self._open[-MAX_LINE_CHARACTERS:]
        for line in whole:
            self._lines.append(_readable(line))

    def lines(self) -> list[str]:
        return [*self._lines, *([_readable(self._open)] if self._open else [])]


def _readable(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip()[:MAX_LINE_CHARACTERS]
