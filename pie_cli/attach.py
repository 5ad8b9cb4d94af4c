"""Being at the other end of a running process: its events, lines of stdin for it, and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any

from pie_cli import console, exits
from pie_cli.render import Printer, as_error
from pie_cli.summary import Timing
from pie_engine.errors import InvalidInput, InvalidProgram, Lost, PieError

if TYPE_CHECKING:
    from pie_client import Process

CANCELLED = "cancelled"

OnTrace = Callable[[dict[str, Any]], None]


class Ending:
    """A process is to end before it does so by itself."""

    def __init__(self, note: str = "") -> None:
        self.is_wanted = False
        self.note = note
        """Said when it is wanted."""
        self._event = asyncio.Event()

    def want(self) -> None:
        self.is_wanted = True
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


class Interrupts(Ending):
    """The first Ctrl-C is for the program, the second one leaves at once."""

    def __init__(self, note: str = "ending the program; Ctrl-C again leaves at once") -> None:
        super().__init__(note)
        self.before_exit: Callable[[], None] = lambda: None
        """Called when it leaves at once."""
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_wanted:
            # Also when the loop is stuck in a write to a pipe that nobody reads.
            self.before_exit()
            os._exit(exits.INTERRUPTED)
        self.is_wanted = True
        self._loop.call_soon_threadsafe(self.want)


async def follow(
    process: Process,
    printer: Printer,
    timing: Timing,
    *,
    lines: AsyncIterator[str] | None = None,
    on_trace: OnTrace | None = None,
    ending: Ending | None = None,
) -> int:
    """Shows a process until its end and returns the exit code. Ctrl-C and a closed stdout end the process.

    lines: sent to it as messages, and `null` behind them.
    on_trace: given the data of each `trace` event, if the process was launched to have some.
    ending: what ends the process, in place of Ctrl-C.
    """
    with nullcontext(ending) if ending else Interrupts() as ending:
        tasks = [asyncio.create_task(_terminate_when_wanted(process, ending))]
        if lines is not None:
            tasks.append(asyncio.create_task(_send_lines(process, lines)))
        try:
            code = await _show_events(process, printer, timing, ending, on_trace)
        except (console.OutputClosed, console.OutputFailed):
            await _terminate(process)
            raise
        finally:
            await _cancelled(tasks)
        return exits.INTERRUPTED if ending.is_wanted else code


async def attach_to(start: str, *, only_new: bool, as_json: bool, sends: bool) -> int:
    """Shows a process that somebody has launched until its end, whose exit code it returns. Ctrl-C detaches."""
    from pie_cli.client import new_client
    from pie_cli.daemon import require_daemon
    from pie_cli.processes import full_pid
    from pie_cli.render import JsonPrinter, TextPrinter
    from pie_cli.stdin import Stdin

    async with new_client() as client:
        await require_daemon(client)
        pid = await full_pid(client, start)
        view = await client.inspect(pid)
        # What a process ended with is shown in any case.
        after = view["last_event"] - (view["state"] == "ended") if only_new else 0
        async with await client.attach(pid, after) as process:
            sending = asyncio.create_task(_send_lines(process, Stdin().lines(), says_end=False)) if sends else None
            with Interrupts("") as interrupts:
                interrupted = asyncio.create_task(interrupts.wait())
                showing = asyncio.create_task(
                    _show_events(process, JsonPrinter() if as_json else TextPrinter(), Timing(), Ending(), None)
                )
                try:
                    await asyncio.wait({interrupted, showing}, return_when=asyncio.FIRST_COMPLETED)
                    if showing.done():
                        return showing.result()
                finally:
                    await _cancelled([task for task in (interrupted, showing, sending) if task])
            console.note(f"detached; `pie attach {pid}` comes back, `pie kill {pid}` ends it")
            return exits.INTERRUPTED


async def _show_events(
    process: Process, printer: Printer, timing: Timing, ending: Ending, on_trace: OnTrace | None
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
            code = exit_code_of(value)
            if ending.is_wanted and as_error(value).code == CANCELLED and not printer.shows_all:
                # Whoever pressed Ctrl-C knows.
                break
        printer.show(kind, value)
    printer.finish()
    return code


def exit_code_of(value: object) -> int:
    """Of an `error` event."""
    error = as_error(value).raised()
    # With a traceback it was the program that gave wrong input to something.
    if isinstance(error, InvalidProgram) or (isinstance(error, InvalidInput) and not error.traceback):
        return exits.USAGE
    return exits.DAEMON if isinstance(error, Lost) else exits.PROGRAM_FAILED


async def _terminate_when_wanted(process: Process, ending: Ending) -> None:
    await ending.wait()
    if ending.note:
        console.end_typed()
        console.note(ending.note)
    await _terminate(process)


async def _terminate(process: Process) -> None:
    # Its end is what was wanted; a daemon that is gone has seen to it.
    with contextlib.suppress(PieError):
        await process.terminate()


async def _send_lines(process: Process, lines: AsyncIterator[str], *, says_end: bool = True) -> None:
    """Each line as a message, and `null` at the end. Stops when the process takes no more."""
    with contextlib.suppress(PieError):
        async for line in lines:
            await process.send(line)
        if says_end:
            await process.send(None)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
