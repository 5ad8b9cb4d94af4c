"""The terminal under a program whose own output goes to the host: pdb reads and writes there."""

from __future__ import annotations

import contextlib
import pdb
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from inferlet import _transport
from inferlet._loop import HostLoop, wait_any
from inferlet.errors import PieError

SETTLE_S = 1.0
"""No longer than this is waited for what the program has printed to be seen."""
SHOW_S = 0.03
"""From its client until it stands on the screen."""


class Terminal:
    """Standard streams as they were at the start."""

    def __init__(self) -> None:
        self.stdin = sys.stdin
        self.stderr = sys.stderr
        # What is written is no data: where stdout is not the terminal, it goes where errors go.
        self.stdout = sys.stdout if sys.stdout.isatty() else sys.stderr

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Inside, the standard streams are the terminal's, and Ctrl-C is raised wherever it comes."""
        before = sys.stdin, sys.stdout, sys.stderr
        on_ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin, sys.stdout, sys.stderr = self.stdin, self.stdout, self.stderr
        try:
            yield
        finally:
            self.stdout.flush()
            sys.stdin, sys.stdout, sys.stderr = before
            # pdb may have set its own, for the time that the program runs on.
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, on_ctrl_c)


def install_pdb(terminal: Terminal, loop: HostLoop) -> None:
    """From here on every `pdb` reads and writes at the terminal, however it is started."""
    begin, stop = pdb.Pdb.__init__, pdb.Pdb.interaction

    def begin_at_terminal(self: pdb.Pdb, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.stdin, self.stdout = terminal.stdin, terminal.stdout
        if hasattr(self, "mode"):
            self.mode = None  # or `q` asks first, from 3.14 on, and ends the interpreter

    def stop_at_terminal(self: pdb.Pdb, *args: Any, **kwargs: Any) -> Any:
        _take_back_ctrl_c()
        settle(loop)
        with terminal.own():
            return stop(self, *args, **kwargs)

    pdb.Pdb.__init__ = begin_at_terminal  # type: ignore[method-assign]
    pdb.Pdb.interaction = stop_at_terminal  # type: ignore[method-assign]


def _take_back_ctrl_c() -> None:
    """From pdb, which has it while the program runs on, and would give it back only when the prompt is there."""
    before = pdb.Pdb._previous_sigint_handler  # type: ignore[attr-defined]
    if before is not None:
        signal.signal(signal.SIGINT, before)
        pdb.Pdb._previous_sigint_handler = None  # type: ignore[attr-defined]


def settle(loop: HostLoop) -> None:
    """Wait until what the program has said so far has been shown, so that prompts come after it."""
    with contextlib.suppress(PieError, OSError):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        wire = _transport.host.session
        handle = wire.drain()
        signal = loop.watch(handle)
        end = time.monotonic() + SETTLE_S
        while not signal.is_set and time.monotonic() < end:
            loop._process_events(wait_any(max(0.0, end - time.monotonic())))
        loop.unwatch(handle)
        _transport.host.futures.forget(handle)
        time.sleep(SHOW_S)


def post_mortem(terminal: Terminal, loop: HostLoop, owns: Callable[[str], bool]) -> Callable[[BaseException], None]:
    """What opens pdb where the program has failed, in the innermost of its frames."""

    def open_at(error: BaseException) -> None:
        if isinstance(error, SystemExit | KeyboardInterrupt) or type(error).__name__ == "BdbQuit":
            return
        trace = error.__traceback__
        while trace is not None and not owns(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        if trace is None:
            return
        settle(loop)
        with terminal.own():
            traceback.print_exception(type(error), error, trace)
        pdb.post_mortem(last_of(trace, owns))

    return open_at


def last_of(trace: Any, owns: Callable[[str], bool]) -> Any:
    """Without the frames of the SDK below the program's last one: the prompt stands where the call was made."""
    import types

    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    while not owns(frames[-1].tb_frame.f_code.co_filename):
        frames.pop()
    shortened = None
    for each in reversed(frames):
        shortened = types.TracebackType(shortened, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return shortened
