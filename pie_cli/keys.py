"""Single keys of the terminal, without Enter; and the terminal as it was, whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from pie_cli.stdin import stdin_is_ours

READ_BYTES = 64


class Keys:
    """A context manager. Where stdin is no terminal of ours, no keys come."""

    def __init__(self, *, is_wanted: bool = True) -> None:
        self._pressed: asyncio.Queue[str] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._before: list[Any] | None = None
        self._signals: dict[int, Any] = {}
        self._is_taken = False
        self.are_read = is_wanted and stdin_is_ours()

    async def next(self) -> str:
        """The next one that is pressed."""
        return await self._pressed.get()

    def __enter__(self) -> Keys:
        if self.are_read:
            self._before = termios.tcgetattr(0)
            handlers = {signal.SIGTERM: self._on_end, signal.SIGHUP: self._on_end, signal.SIGCONT: self._on_return}
            self._signals = {number: signal.signal(number, handler) for number, handler in handlers.items()}
            self._take()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            self._give_back()
            for number, handler in self._signals.items():
                signal.signal(number, handler)

    def restore(self) -> None:
        """The terminal as it was; also for who leaves at once."""
        if self._before is not None:
            with suppress(termios.error):
                termios.tcsetattr(0, termios.TCSANOW, self._before)

    def leave(self) -> None:
        """The terminal is for lines from now on: no more keys come."""
        if self.are_read:
            self._give_back()
            self.are_read = False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Around another program that uses the terminal."""
        if not self.are_read:
            yield
            return
        self._give_back()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        # Ctrl-C stays a signal, and output is as always.
        tty.setcbreak(0, termios.TCSANOW)
        self._loop.add_reader(0, self._read)
        self._is_taken = True

    def _give_back(self) -> None:
        self._is_taken = False
        self._loop.remove_reader(0)
        self.restore()

    def _read(self) -> None:
        try:
            data = os.read(0, READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(0)  # the terminal is gone
        for character in data.decode("utf-8", "ignore"):
            self._pressed.put_nowait(character)

    def _on_end(self, number: int, _frame: FrameType | None) -> None:
        self.restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _on_return(self, _number: int, _frame: FrameType | None) -> None:
        """After Ctrl-Z and `fg`: the shell has used the terminal meanwhile."""
        if self._is_taken and stdin_is_ours():
            tty.setcbreak(0, termios.TCSANOW)
