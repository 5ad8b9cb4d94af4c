"""`sys.stdout` and `sys.stderr` of an inferlet: line-buffered text that goes to the host, whole and in order."""

from __future__ import annotations

import io
from typing import Any

from inferlet import _transport

MAX_PIECE_BYTES = 64 * 1024
"""Most UTF-8 bytes in one call to the host."""
_SAFE_CHARS = MAX_PIECE_BYTES // 4


class HostWriter(io.TextIOBase):
    """Text goes out at each newline, on `flush`, and before the program waits."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, output: str) -> None:
        """`output` is `STDOUT` or `STDERR`."""
        self._output = output
        self._held: list[str] = []
        self.name = f"<{output.lower()}>"
        self.buffer = _Bytes(self)

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._held.append(text)
        if "\n" in text:
            self._emit("".join(self._held))
        return len(text)

    def flush(self) -> None:
        if self._held:
            self._emit("".join(self._held))

    def isatty(self) -> bool:
        return False

    @property
    def line_buffering(self) -> bool:
        return True

    def _emit(self, text: str) -> None:
        self._held = []
        log = _transport.host.log
        output = log.Output[self._output]
        if not text.isascii():
            text = text.encode("utf-8", self.errors).decode("utf-8")
        step = MAX_PIECE_BYTES if text.isascii() else _SAFE_CHARS
        for start in range(0, len(text), step):
            _transport.call(log.write, output, text[start : start + step])


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`, for programs that write bytes; they have to be UTF-8."""

    def __init__(self, text: HostWriter) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        raw = bytes(data)
        self._text.write(raw.decode("utf-8", "replace"))
        return len(raw)

    def flush(self) -> None:
        self._text.flush()
