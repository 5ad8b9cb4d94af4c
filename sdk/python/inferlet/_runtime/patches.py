"""Replaces what would wait inside WASI, where the host can neither see nor end it, by waits on the host.

Installed once, while the runtime is built.
"""

from __future__ import annotations

import asyncio
import io
import logging
import queue
import sched
import select as select_module
import selectors
import sys
import threading
import time
from typing import Any, NoReturn

from inferlet import log
from inferlet._loop import HostLoop
from inferlet._output import HostWriter
from inferlet._runtime import absent, branches, ordered
from inferlet.errors import Unsupported


def install(loop: HostLoop) -> None:
    """Patch the standard library; `loop` is the one that runs `main`."""
    _install_time(loop)
    _install_threads()
    _install_asyncio()
    _install_streams()
    _install_logging()
    _install_breakpoint()
    absent.install()


def install_native() -> None:
    """The part for programs in an ordinary Python: their text, log records and `asyncio` are as in a sandbox, while
    threads, files and sockets stay what debuggers need."""
    _install_asyncio()
    _install_streams()
    _install_logging()


def _install_time(loop: HostLoop) -> None:
    def sleep(seconds: float, /) -> None:
        """Block the whole program, all of its tasks, for `seconds`. `await asyncio.sleep` blocks one task only."""
        if not hasattr(seconds, "__float__") and not hasattr(seconds, "__index__"):
            raise TypeError(f"'{type(seconds).__name__}' object cannot be interpreted as an integer or float")
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        loop.block(float(seconds))

    def select(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None, /) -> tuple[list, list, list]:
        """Only the timeout of select.select works in a sandbox."""
        if rlist or wlist or xlist or timeout is None:
            raise Unsupported("a sandbox has no sockets or pipes to select on", hint="use asyncio")
        sleep(timeout)
        return [], [], []

    def poll(*args: Any) -> NoReturn:
        raise Unsupported("a sandbox has no sockets or pipes to poll", hint="use asyncio")

    time.sleep = sleep
    sched.scheduler.__init__.__defaults__ = (time.monotonic, sleep)  # it took the former one when it was imported
    select_module.select = select
    select_module.poll = poll
    selectors.DefaultSelector = poll  # type: ignore[assignment,misc]


class Lock:
    """`threading.Lock` where there is one thread: it never has to wait, and where it would it says so."""

    def __init__(self) -> None:
        self._is_locked = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._is_locked:
            self._is_locked = True
            return True
        if not blocking:
            return False
        if timeout < 0:
            raise RuntimeError(
                "this would wait for ever: a sandbox has one thread, so nobody else can release the lock"
            )
        time.sleep(timeout)
        return False

    acquire_lock = acquire

    def release(self) -> None:
        if not self._is_locked:
            raise RuntimeError("release unlocked lock")
        self._is_locked = False

    release_lock = release

    def locked(self) -> bool:
        return self._is_locked

    locked_lock = locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._is_locked = False


def _install_threads() -> None:
    def start(self: threading.Thread) -> NoReturn:
        raise Unsupported(
            "a sandbox has no threads",
            hint="use asyncio: `async with asyncio.TaskGroup() as group: group.create_task(…)`",
        )

    threading.Thread.start = start  # type: ignore[method-assign]
    threading.Lock = Lock  # type: ignore[misc,assignment]
    threading._allocate_lock = Lock  # type: ignore[attr-defined]
    queue.SimpleQueue = queue._PySimpleQueue  # type: ignore[attr-defined,misc]


def _install_asyncio() -> None:
    """`asyncio.run` in synchronous code gets the host's loop too."""
    asyncio.new_event_loop = asyncio.events.new_event_loop = HostLoop  # type: ignore[assignment]
    branches.install()
    ordered.install()


class _NoInput(io.TextIOBase):
    """`sys.stdin`: nobody types here."""

    encoding = "utf-8"
    name = "<stdin>"

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> NoReturn:
        raise Unsupported(
            "an inferlet has no standard input",
            hint="take a parameter of `main`, or `await session.receive()`; pdb works under `pie debug`",
        )

    readline = readlines = __next__ = read  # type: ignore[assignment]


def _install_streams() -> None:
    sys.stdout = sys.__stdout__ = HostWriter("STDOUT")  # type: ignore[assignment,misc]
    sys.stderr = sys.__stderr__ = HostWriter("STDERR")  # type: ignore[assignment,misc]
    sys.stdin = sys.__stdin__ = _NoInput()  # type: ignore[assignment,misc]


def _install_breakpoint() -> None:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise Unsupported(
            "a sandbox has no terminal, so breakpoint() does not work here",
            hint="`pie debug` runs the program where it does; for `pie run` take it out",
        )

    sys.breakpointhook = sys.__breakpointhook__ = refuse


def _install_logging() -> None:
    """All of `logging` goes to the log of the process. With a handler there, `basicConfig` changes nothing."""
    logging.root.addHandler(log.HostHandler())
    logging.root.setLevel(logging.INFO)
