"""Tells the host which line of the program each call comes from, in runs that are recorded or measured."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from inferlet import _transport

UNPLACED = frozenset({"wait_any", "at", "store_code"})
"""Calls that belong to no line."""


def install(owns: Callable[[str], bool]) -> None:
    """From here on; `owns`: whether a file is one of the program's."""
    host = _transport.connect(None)
    _transport.connect(_Watched(host, _Places(host.runtime.at, owns)))


class _Places:
    """Where the program is; the host is told when it is elsewhere."""

    def __init__(self, tell: Callable[[str, str], None], owns: Callable[[str], bool]) -> None:
        self._tell = tell
        self._owns = owns
        self._last: tuple[Any, ...] = (None, 0, "")

    def note(self) -> None:
        """Of the caller's caller, or the first above it that is in a file of the program."""
        frame: Any = sys._getframe(2)
        while frame is not None and not self._owns(frame.f_code.co_filename):
            frame = frame.f_back
        task = _task_name()
        here = (None, 0, task) if frame is None else (frame.f_code, frame.f_lineno, task)
        if here != self._last:
            self._last = here
            place = "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
            self._tell(place, task)


def _task_name() -> str:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs: the program is being imported
        return ""
    return "" if task is None else task.get_name()


class _Watched:
    """The host, each of whose functions notes where it is called from."""

    def __init__(self, host: Any, places: _Places) -> None:
        self._host = host
        self._places = places

    def __getattr__(self, interface: str) -> _WatchedInterface:
        watched = _WatchedInterface(getattr(self._host, interface), self._places)
        setattr(self, interface, watched)
        return watched


class _WatchedInterface:
    """Records and enumerations are as they were."""

    def __init__(self, interface: Any, places: _Places) -> None:
        self._interface = interface
        self._places = places

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._interface, name)
        if callable(value) and not isinstance(value, type) and name not in UNPLACED:
            value = _placed(value, self._places)
        setattr(self, name, value)
        return value


def _placed(function: Callable[..., Any], places: _Places) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        places.note()
        return function(*args)

    return call
