"""Ctrl-C between two turns, and not in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """A context manager: SIGINT waits for its end.

    An exception that came up in a callback of a guest would be told to the guest as an error of that call, and lost.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._noted: FrameType | None = None
        self._is_noted = self._is_watching = False

    def __enter__(self) -> None:
        self._is_noted, self._noted = False, None
        self._before = signal.getsignal(signal.SIGINT)
        # Only the main thread may set it, and without a handler in Python nothing is raised.
        self._is_watching = threading.current_thread() is threading.main_thread() and callable(self._before)
        if self._is_watching:
            signal.signal(signal.SIGINT, self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_watching:
            signal.signal(signal.SIGINT, self._before)
            if self._is_noted:
                self._before(signal.SIGINT, self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_noted, self._noted = True, frame
