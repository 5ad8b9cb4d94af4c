"""Being at the other end of a running process: its events, lines of stdin for it, and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from pie_cli import console, exits
from pie_cli.render import Printer, as_error
from pie_cli.summary import Timing
from pie_engine.errors import InvalidInput, InvalidProgram, Lost, PieError

if TYPE_CHECKING:
    from pie_client import Process

READ_BYTES = 65536
MAX_WAITING_LINES = 64
CANCELLED = "cancelled"

OnTrace = Callable[[dict[str, Any]], None]


class Interrupts:
    """The first Ctrl-C is for the program, the second one leaves at once."""

    def __init__(self) -> None:
        self.was_pressed = False
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def wait(self) -> None:
        await self._event.wait()

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.was_pressed:
            # Also when the loop is stuck in a write to a pipe that nobody reads.
            os._exit(exits.INTERRUPTED)
        self.was_pressed = True
        self._loop.call_soon_threadsafe(self._event.set)


async def follow(
    process: Process, printer: Printer, timing: Timing, *, sends_stdin: bool, on_trace: OnTrace | None = None
) -> int:
    """Shows a process until its end and returns the exit code. Ctrl-C and a closed stdout end the process.

    on_trace: given the data of each `trace` event, if the process was launched to have some.
    """
    with Interrupts() as interrupts:
        tasks = [asyncio.create_task(_terminate_when_pressed(process, interrupts))]
        if sends_stdin:
            tasks.append(asyncio.create_task(_send_lines(process)))
        try:
            code = await _show_events(process, printer, timing, interrupts, on_trace)
        except console.OutputClosed:
            await _terminate(process)
            return exits.OK
        except console.OutputFailed:
            await _terminate(process)
            raise
        finally:
            await _cancelled(tasks)
        return exits.INTERRUPTED if interrupts.was_pressed else code


def stdin_has_lines() -> bool:
    """Whether stdin is a pipe, a socket or a file: something that was put there to be read."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


async def _show_events(
    process: Process, printer: Printer, timing: Timing, interrupts: Interrupts, on_trace: OnTrace | None
) -> int:
    code = exits.OK
    async for event, value in process:
        kind = event.value
        if kind == "trace":
            if on_trace is not None:
                on_trace(value)
            continue
        timing.saw(kind)
        if kind == "error":
            code = _exit_code(value)
            if interrupts.was_pressed and as_error(value).code == CANCELLED and not printer.shows_all:
                # Whoever pressed Ctrl-C knows.
                break
        printer.show(kind, value)
    printer.finish()
    return code


def _exit_code(value: object) -> int:
    error = as_error(value).raised()
    # With a traceback it was the program that gave wrong input to something.
    if isinstance(error, InvalidProgram) or (isinstance(error, InvalidInput) and not error.traceback):
        return exits.USAGE
    return exits.DAEMON if isinstance(error, Lost) else exits.PROGRAM_FAILED


async def _terminate_when_pressed(process: Process, interrupts: Interrupts) -> None:
    await interrupts.wait()
    console.note("ending the program; Ctrl-C again leaves at once")
    await _terminate(process)


async def _terminate(process: Process) -> None:
    # Its end is what was wanted; a daemon that is gone has seen to it.
    with contextlib.suppress(PieError):
        await process.terminate()


async def _send_lines(process: Process) -> None:
    """Each line of stdin as a message, and `null` at the end. Stops when the process takes no more."""
    with contextlib.suppress(PieError):
        async for line in _stdin_lines():
            await process.send(line)
        await process.send(None)


async def _stdin_lines() -> AsyncIterator[str]:
    """Lines without their end. A thread reads: files cannot be waited for, and terminals must not block the loop."""
    lines: asyncio.Queue[str | None] = asyncio.Queue(MAX_WAITING_LINES)
    threading.Thread(target=_read_stdin, args=(lines, asyncio.get_running_loop()), daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line


def _read_stdin(lines: asyncio.Queue[str | None], loop: asyncio.AbstractEventLoop) -> None:
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


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
