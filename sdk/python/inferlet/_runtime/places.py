"""Tells the host which line of the program each call comes from, in runs that are recorded or measured."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Container, Coroutine
from functools import cache
from types import CodeType, FrameType
from typing import Any
from weakref import WeakKeyDictionary

from inferlet import _transport

UNPLACED = ("futures.wait_any", "runtime.at", "runtime.store_code")
"""Calls that belong to no line."""
TAKE = ("forward.finish", "context.finish_flush", "context.finish_save", "generate.finish_search")
TAKE += ("session.finish_drain", "matcher.finish_look", "scheduling.finish_look")
"""Calls that take the result of a future in the same `await` that asked for it (`_loop.finished`): the host knows their
line from there."""
LOOP = "asyncio.events"
"""The module that calls what is in the loop: below it, nothing is the program's."""
_Task = asyncio.Task[Any]
_Here = tuple[CodeType | None, int, str]
"""Code, offset in it, and the name of the task."""


def install(files: Container[str], loop: asyncio.AbstractEventLoop) -> None:
    """From here on; `files`: of the program."""
    places = _Places(_transport.host, files, loop)
    loop.set_task_factory(places.new_task)
    _transport.note = places.noter()


def uninstall(loop: asyncio.AbstractEventLoop) -> None:
    """Nothing happens where it is not installed."""
    loop.set_task_factory(None)
    _transport.note = None


@cache
def passed_modules() -> frozenset[str]:
    """Those whose frames are no lines of the program."""
    return frozenset(name for name in sys.modules if name.partition(".")[0] in ("inferlet", "asyncio")) - {LOOP}


class _Places:
    """Where the program is; the host is told when it is elsewhere."""

    def __init__(self, host: Any, files: Container[str], loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._files = files
        self._loop = loop
        self._made: WeakKeyDictionary[_Task, str] = WeakKeyDictionary()
        """Where tasks were made: in one that runs a coroutine of the SDK there is no line of the program."""

    def noter(self) -> Callable[[Callable[..., Any]], None]:
        """What `_transport.call` tells of a function that it is about to call."""
        # It is called thousands of times a second, by a Python that WebAssembly makes slow: everything is at hand, and
        # frames that are not the program's only tell their module, since an object for one costs a microsecond.
        files, passed, module_of, frame_of = self._files, passed_modules(), _module_of, sys._getframe
        current_task, loop, tell, place_of = asyncio.current_task, self._loop, self._host.runtime.at, self._place
        unnoted = frozenset(self._function(name) for name in UNPLACED + TAKE)
        last: _Here = (None, 0, "")
        """Where the host knows it."""

        def note(function: Callable[..., Any]) -> None:
            nonlocal last
            if function in unnoted:
                return
            depth = 3  # `_transport.call` is above this, and a function of the SDK above that
            while (module := module_of(depth)) in passed:
                depth += 1
            # Code may be in no module.
            frame: FrameType | None = None if module == LOOP else frame_of(3 if module is None else depth)
            while frame is not None and frame.f_code.co_filename not in files:
                frame = frame.f_back
            task = current_task(loop)
            name = "" if task is None else task.get_name()
            # Lines are looked up for those that count only.
            here = (None, 0, name) if frame is None else (frame.f_code, frame.f_lasti, name)
            if here != last:
                last = here
                tell(place_of(frame, task), name)

        return note

    def _function(self, name: str) -> Any:
        interface, _, function = name.partition(".")
        return getattr(getattr(self._host, interface), function, None)

    def new_task(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> _Task:
        """As the loop makes one."""
        task = asyncio.Task(coroutine, loop=loop, **options)
        place = self._place(self._own(sys._getframe(1)), asyncio.current_task(loop))
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


def _module_by_frame(depth: int) -> str | None:
    try:
        return sys._getframe(depth + 1).f_globals.get("__name__")
    except ValueError:  # there are not so many frames
        return None


_module_of: Callable[[int], str | None] = getattr(sys, "_getframemodulename", _module_by_frame)
"""Of the function so many frames above the caller. Older Pythons than the sandbox's do not have it."""
