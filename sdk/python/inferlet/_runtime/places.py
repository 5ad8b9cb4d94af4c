"""Tells the host which line of the program each call comes from, in runs that are recorded or measured."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Container, Coroutine
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from inferlet import _transport

UNPLACED = frozenset({"wait_any", "at", "store_code"})
"""Calls that belong to no line."""


def install(files: Container[str], loop: asyncio.AbstractEventLoop) -> None:
    """From here on; `files`: of the program."""
    host = _transport.connect(None)
    places = _Places(host.runtime.at, files)
    loop.set_task_factory(places.new_task)
    _transport.connect(_Watched(host, places))


_Task = asyncio.Task[Any]


class _Places:
    """Where the program is; the host is told when it is elsewhere."""

    def __init__(self, tell: Callable[[str, str], None], files: Container[str]) -> None:
        self._tell = tell
        self._files = files
        self._made: WeakKeyDictionary[_Task, str] = WeakKeyDictionary()
        """Where tasks were made: in one that runs a coroutine of the SDK there is no line of the program."""
        self._last: tuple[Any, ...] = (None, 0, "")

    def placed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, which notes who calls it: the caller, or the first above it that is in a file of the program."""
        # It is called thousands of times a second, by a Python that WebAssembly makes slow: everything is at hand.
        files, frame_of, current_task = self._files, sys._getframe, _current_task

        def call(*args: Any) -> Any:
            frame: FrameType | None = frame_of(1)
            while frame is not None and frame.f_code.co_filename not in files:
                frame = frame.f_back
            task = current_task()
            name = "" if task is None else task.get_name()
            # Lines are looked up for those that count only.
            here = (None, 0, name) if frame is None else (frame.f_code, frame.f_lasti, name)
            if here != self._last:
                self._last = here
                self._tell(self._place(frame, task), name)
            return function(*args)

        return call

    def new_task(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> _Task:
        """As the loop makes one."""
        task = asyncio.Task(coroutine, loop=loop, **options)
        place = self._place(self._own(sys._getframe(1)), _current_task())
        if place:
            self._made[task] = place
        return task

    def _own(self, frame: FrameType | None) -> FrameType | None:
        while frame is not None and frame.f_code.co_filename not in self._files:
            frame = frame.f_back
        return frame

    def _place(self, frame: FrameType | None, task: _Task | None) -> str:
        """`main.py:12 in main`; empty where none is known."""
        if frame is not None:
            return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        return "" if task is None else self._made.get(task, "")


def _current_task() -> _Task | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs: the program is being imported
        return None


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
            value = self._places.placed(value)
        setattr(self, name, value)
        return value
