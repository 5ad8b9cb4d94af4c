"""What comes on stdin: one text, or lines as they come; for programs that run again and again, each time all of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator

from pie_engine.errors import InvalidInput

READ_BYTES = 65536
MAX_WAITING_LINES = 64


def stdin_has_lines() -> bool:
    """Whether stdin is a pipe, a socket or a file: something that was put there to be read."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def stdin_is_ours() -> bool:
    """Whether stdin is a terminal in whose foreground this command runs: others are stopped when they touch it."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


class Stdin:
    """Of one command. With `keeps` it gives each run what the runs before it have got, and then what is new."""

    def __init__(self, *, keeps: bool = False) -> None:
        self._keeps = keeps
        self._text: str | None = None
        self._kept: list[str] = []
        self._coming: asyncio.Queue[str | None] | None = None
        self._has_ended = False

    def text(self) -> str:
        """All of it, until its end: there are no lines then. Raises `InvalidInput` where that is not UTF-8."""
        if self._text is None:
            self._text, self._has_ended = _read_text(), True
        return self._text

    async def lines(self) -> AsyncIterator[str]:
        """Lines without their end. One at a time may be asking."""
        num_given = 0
        while True:
            while num_given < len(self._kept):
                num_given += 1
                yield self._kept[num_given - 1]
            line = await self._next_line()
            if line is None:
                return
            if self._keeps:
                self._kept.append(line)
            else:
                yield line

    async def _next_line(self) -> str | None:
        """A thread reads: files cannot be waited for, and terminals must not block the loop."""
        if self._has_ended:
            return None
        if self._coming is None:
            self._coming = asyncio.Queue(MAX_WAITING_LINES)
            reader = (self._coming, asyncio.get_running_loop())
            threading.Thread(target=_read_lines, args=reader, daemon=True).start()
        line = await self._coming.get()
        self._has_ended = line is None
        return line


def _read_text() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"stdin is not text in UTF-8: {error}") from error


def _read_lines(lines: asyncio.Queue[str | None], loop: asyncio.AbstractEventLoop) -> None:
    def put(line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()

    rest = b""
    # The loop may be gone when the last line comes.
    with contextlib.suppress(RuntimeError, asyncio.CancelledError):
        # Not sys.stdin: a thread that waits inside its buffer's lock breaks the exit of the interpreter.
        while piece := os.read(0, READ_BYTES):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                put(line.removesuffix(b"\r").decode(sys.stdin.encoding, "replace"))
        if rest:
            put(rest.decode(sys.stdin.encoding, "replace"))
        put(None)
