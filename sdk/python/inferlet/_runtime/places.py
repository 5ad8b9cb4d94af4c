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

UNPLACED = frozenset({"wait_any", "at", "store_code"})
"""Calls that belong to no line."""
GIVE = frozenset({"forward.start", "context.flush", "context.save", "generate.search", "session.drain", "matcher.look"})
GIVE |= {"scheduling.look"}
"""Calls that give a future which is waited for in the same `await` (`_loop.finished`)."""
TAKE = frozenset({"finish", "finish_flush", "finish_save", "finish_search", "finish_drain", "finish_look"})
"""Calls that take its result."""
LOOP = "asyncio.events"
"""The module that calls what is in the loop: below it, nothing is the program's."""
_Task = asyncio.Task[Any]
_Here = tuple[CodeType | None, int, str]
"""Code, offset in it, and the name of the task."""


def install(files: Container[str], loop: asyncio.AbstractEventLoop) -> None:
    """From here on; `files`: of the program."""
    host = _transport.connect(None)
    places = _Places(host.runtime.at, files)
    loop.set_task_factory(places.new_task)
    _transport.connect(_Watched(host, places))


@cache
def passed_modules() -> frozenset[str]:
    """Those whose frames are no lines of the program."""
    return frozenset(name for name in sys.modules if name.partition(".")[0] in ("inferlet", "asyncio")) - {LOOP}


class _Places:
    """Where the program is; the host is told when it is elsewhere."""

    def __init__(self, tell: Callable[[str, str], None], files: Container[str]) -> None:
        self._tell = tell
        self._files = files
        self._made: WeakKeyDictionary[_Task, str] = WeakKeyDictionary()
        """Where tasks were made: in one that runs a coroutine of the SDK there is no line of the program."""
        self._last: tuple[_Here, str] = ((None, 0, ""), "")
        """Where the host knows it, with the text of the place."""
        self._asked: dict[int, tuple[_Here, str]] = {}
        """By future: where it was asked for."""
        self._note = self._noter()

    def placed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, which notes who calls it: the caller, or the first above it that is in a file of the program."""
        note = self._note

        def call(*args: Any) -> Any:
            note()
            return function(*args)

        return call

    def giving(self, function: Callable[..., int]) -> Callable[..., int]:
        """The same for one that gives a future; see `GIVE`."""
        note, asked = self._note, self._asked

        def call(*args: Any) -> int:
            note()
            handle = function(*args)
            asked[handle] = self._last
            return handle

        return call

    def taking(self, function: Callable[[int], Any]) -> Callable[[int], Any]:
        """The same for one that takes the result of a future, which is where it was asked for."""
        note, asked = self._note, self._asked

        def call(handle: int) -> Any:
            where = asked.pop(handle, None)
            if where is None:
                note()
            elif where != self._last:
                self._last = where
                self._tell(where[1], where[0][2])
            return function(handle)

        return call

    def forgetting(self, function: Callable[[int], None]) -> Callable[[int], None]:
        """The same for `futures.forget`."""
        note, asked = self._note, self._asked

        def call(handle: int) -> None:
            note()
            asked.pop(handle, None)
            function(handle)

        return call

    def _noter(self) -> Callable[[], None]:
        """What notes who has called its caller."""
        # It is called thousands of times a second, by a Python that WebAssembly makes slow: everything is at hand, and
        # frames that are not the program's only tell their module, since an object for one costs a microsecond.
        files, passed, module_of = self._files, passed_modules(), _module_of
        frame_of, current_task = sys._getframe, _current_task

        def note() -> None:
            depth = 2
            while (module := module_of(depth)) in passed:
                depth += 1
            # Code may be in no module.
            frame: FrameType | None = None if module == LOOP else frame_of(2 if module is None else depth)
            while frame is not None and frame.f_code.co_filename not in files:
                frame = frame.f_back
            task = current_task()
            name = "" if task is None else task.get_name()
            # Lines are looked up for those that count only.
            here = (None, 0, name) if frame is None else (frame.f_code, frame.f_lasti, name)
            if here != self._last[0]:
                place = self._place(frame, task)
                self._last = here, place
                self._tell(place, name)

        return note

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


def _module_by_frame(depth: int) -> str | None:
    try:
        return sys._getframe(depth + 1).f_globals.get("__name__")
    except ValueError:  # there are not so many frames
        return None


_module_of: Callable[[int], str | None] = getattr(sys, "_getframemodulename", _module_by_frame)
"""Of the function so many frames above the caller. Older Pythons than the sandbox's do not have it."""


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
        watched = _WatchedInterface(interface, getattr(self._host, interface), self._places)
        setattr(self, interface, watched)
        return watched


class _WatchedInterface:
    """Records and enumerations are as they were."""

    def __init__(self, name: str, interface: Any, places: _Places) -> None:
        self._name = name
        self._interface = interface
        self._places = places

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._interface, name)
        if callable(value) and not isinstance(value, type) and name not in UNPLACED:
            value = self._way_of(name)(value)
        setattr(self, name, value)
        return value

    def _way_of(self, function: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        places = self._places
        if f"{self._name}.{function}" in GIVE:
            return places.giving
        if function in TAKE:
            return places.taking
        return places.forgetting if function == "forget" else places.placed
