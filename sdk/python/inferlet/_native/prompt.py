"""The prompt of pdb under `pie debug`: `await` works there, and Ctrl-C opens it also while the program waits."""

from __future__ import annotations

import ast
import asyncio
import bdb
import contextlib
import inspect
import pdb
import signal
import sys
import types
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from inferlet._loop import HostLoop
from inferlet._native.host import NativeHost


def install(loop: HostLoop, host: NativeHost, owns: Callable[[str], bool]) -> None:
    """For every `pdb`, however it is started. `owns`: whether a file is the program's."""
    default, value_of, interrupted = pdb.Pdb.default, pdb.Pdb._getval, pdb.Pdb.sigint_handler  # type: ignore[attr-defined]

    def run_line(self: pdb.Pdb, line: str) -> Any:
        code = _awaiting(line.removeprefix("!").strip(), "single")
        if code is None:
            return default(self, line)
        with contextlib.suppress(_Shown), _displaying(self):
            return _run(self, code, loop, host)

    def get_value(self: pdb.Pdb, text: str) -> Any:
        code = _awaiting(text, "eval")
        return value_of(self, text) if code is None else _run(self, code, loop, host)

    def on_ctrl_c(self: pdb.Pdb, number: int, frame: Any) -> None:
        chain = _waiting_frames(loop, owns)
        if not host.is_waiting or not chain:
            interrupted(self, number, frame)
            return
        host.interrupt(partial(_stop_in_wait, self, chain))

    pdb.Pdb.default, pdb.Pdb._getval = run_line, get_value  # type: ignore[attr-defined, method-assign]
    pdb.Pdb.sigint_handler = on_ctrl_c  # type: ignore[attr-defined, method-assign, assignment]


class _Shown(Exception):
    """What was typed has failed, and that stands on the screen."""


def _awaiting(text: str, mode: str) -> types.CodeType | None:
    """The code of what only a coroutine could run; None for everything else, mistakes too."""
    if "await" not in text and "async" not in text:
        return None
    with contextlib.suppress(SyntaxError, ValueError):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(f"{text}\n", "<stdin>", mode, flags, dont_inherit=True)
        return code if code.co_flags & inspect.CO_COROUTINE else None
    return None


def _run(debugger: pdb.Pdb, code: types.CodeType, loop: HostLoop, host: NativeHost) -> Any:
    """Its value, in the names of the frame at the prompt. Raises `_Shown`."""
    frame = debugger.curframe
    assert frame is not None
    names = getattr(debugger, "curframe_locals", None)  # gone in 3.14, where the frame's own can be written
    coroutine = eval(code, frame.f_globals, frame.f_locals if names is None else names)
    try:
        return _finished(coroutine, loop, host)
    except BaseException as error:
        debugger.error(_line_of(error))
        raise _Shown from error


def _line_of(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextlib.contextmanager
def _displaying(debugger: pdb.Pdb) -> Iterator[None]:
    before, sys.displayhook = sys.displayhook, debugger.displayhook
    try:
        yield
    finally:
        sys.displayhook = before


def _finished(coroutine: Coroutine[Any, Any, Any], loop: HostLoop, host: NativeHost) -> Any:
    """The result, from turns of the loop within the turn in which the program has stopped. Other tasks go on meanwhile;
    Ctrl-C cancels this one alone."""
    task = loop.create_task(coroutine)
    before = signal.signal(signal.SIGINT, host.on_ctrl_c)
    num_ready = len(loop._ready)  # type: ignore[attr-defined]
    try:
        with _nobody_running(loop):
            _turn_until(task, loop)
    finally:
        signal.signal(signal.SIGINT, before)
        # The turn outside has counted them.
        missing = num_ready - len(loop._ready)  # type: ignore[attr-defined]
        for _ in range(missing):
            loop.call_soon(_nothing)
    return task.result()


def _turn_until(task: asyncio.Task[Any], loop: HostLoop) -> None:
    while not task.done():
        try:
            loop._run_once()  # type: ignore[attr-defined]
        except KeyboardInterrupt:
            task.cancel()
            while not task.done():
                loop._run_once()  # type: ignore[attr-defined]
            raise
        if loop.is_terminated:
            task.cancel()


def _nothing() -> None:
    pass


@contextlib.contextmanager
def _nobody_running(loop: HostLoop) -> Iterator[None]:
    """asyncio lets no task run within another one."""
    current = asyncio.current_task(loop)
    if current is None:
        yield
        return
    asyncio.tasks._leave_task(loop, current)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        asyncio.tasks._enter_task(loop, current)  # type: ignore[attr-defined]


def _waiting_frames(loop: HostLoop, owns: Callable[[str], bool]) -> list[types.FrameType]:
    """Where `main` waits, from itself down to the last of the program's frames."""
    waits: Any = None if loop.main is None else loop.main.get_coro()
    frames = []
    while getattr(waits, "cr_frame", None) is not None:
        frames.append(waits.cr_frame)
        waits = waits.cr_await
    while frames and not owns(frames[-1].f_code.co_filename):
        frames.pop()
    return frames


def _stop_in_wait(debugger: pdb.Pdb, frames: list[types.FrameType]) -> None:
    """The prompt, at the line that waits. It is no event of the trace function, so tracing begins anew after it."""
    sys.settrace(None)
    debugger.message("\nProgram interrupted. (Use 'cont' to resume).")
    trace = None
    for frame in reversed(frames):
        trace = types.TracebackType(trace, frame, frame.f_lasti, frame.f_lineno)
    debugger.interaction(None, trace)
    if debugger.quitting:
        raise bdb.BdbQuit
    if debugger.stoplineno != -1 or debugger.breaks:  # as `Bdb.set_continue` leaves it
        sys.settrace(debugger.trace_dispatch)
