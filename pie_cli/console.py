"""The only module that prints: data on stdout, everything else on stderr, and nothing carried by colour alone."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BOLD, RED, GREEN, YELLOW, DIM = "1", "1;31", "32", "33", "2"


# xterm's control sequences; every terminal of the last decades has them.
_ENTER_SCREEN, _LEAVE_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_BOLD_BEGIN, _END = f"\x1b[{BOLD}m", "\x1b[0m"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


class OutputClosed(Exception):
    """Whoever read our stdout is gone (`| head`)."""


class OutputFailed(Exception):
    """What should be on stdout cannot be written there: a full disk, or stdout is closed. Says why."""


_line_is_open = {"stdout": False, "stderr": False}
"""Whether the last thing written there did not end its line."""


def prepare() -> None:
    """Text that the terminal's encoding lacks is shown with marks instead of ending the command."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Marks here would become part of the program's input.
        sys.stdin.reconfigure(errors="strict")


def _open_closed_streams() -> None:
    """After `>&-` and the like: whatever was opened next would take the place of the stream."""
    if sys.stdin is None:
        sys.stdin = _null(0, os.O_RDONLY, "r")
    if sys.stdout is None:
        # For reading only, so that the first write fails.
        sys.stdout = _null(1, os.O_RDONLY, "w")
    if sys.stderr is None:
        sys.stderr = _null(2, os.O_WRONLY, "w")


def _null(number: int, flags: int, mode: str) -> TextIO:
    descriptor = os.open(os.devnull, flags)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    return cast("TextIO", os.fdopen(number, mode, encoding="utf-8"))


def data(text: str) -> None:
    """Write to stdout, as it is and at once. Raises `OutputClosed` or `OutputFailed`."""
    with written_data():
        sys.stdout.write(text)
        sys.stdout.flush()
    if text:
        _line_is_open["stdout"] = not text.endswith("\n")


@contextmanager
def written_data() -> Iterator[None]:
    """Around what writes to stdout: turns its errors into `OutputClosed` and `OutputFailed`."""
    try:
        yield
    except BrokenPipeError:
        _forget(sys.stdout)
        raise OutputClosed from None
    except OSError as error:
        if error.filename is not None:
            raise
        _forget(sys.stdout)
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror
        raise OutputFailed(f"cannot write to stdout: {reason}") from error


def data_line(text: str) -> None:
    """Write one line to stdout, starting a new one where text is open."""
    end_line()
    data(text + "\n")


def end_line() -> None:
    """End the line on stdout if text is open there."""
    if _line_is_open["stdout"]:
        data("\n")


def note(text: str) -> None:
    """A line for the person: status, progress, summaries."""
    _close_lines()
    passed_on(text + "\n")


def passed_on(text: str) -> None:
    """What a program wrote on its stderr, as it is."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        # There is nobody to tell, and the command itself may well succeed.
        _forget(sys.stderr)
    if text:
        _line_is_open["stderr"] = not text.endswith("\n")


def error(message: str, hint: str = "") -> None:
    """`error: …` and, where there is a way out, `hint: …`."""
    note(f"{paint('error:', RED)} {message}")
    if hint:
        show_hint(hint)


def show_hint(text: str) -> None:
    note(f"{paint('hint:', BOLD)} {text}")


def warning(message: str) -> None:
    note(f"{paint('warning:', YELLOW)} {message}")


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in a style where the stream (stderr) is a terminal that wants colour."""
    return f"\x1b[{style}m{text}\x1b[0m" if _has_colour(stream or sys.stderr) else text


def paint_data(text: str, style: str) -> str:
    """`text` in a style where stdout is a terminal that wants colour."""
    return paint(text, style, sys.stdout)


def is_terminal() -> bool:
    """Whether a person reads stderr."""
    return sys.stderr.isatty()


def is_asked() -> bool:
    """Whether there is a person to answer a question."""
    return sys.stdin.isatty()


def ask(question: str) -> bool:
    """A question on stderr, whose answer is no unless it is `y` or `yes`."""
    _close_lines()
    passed_on(f"{question} [y/N] ")
    return _typed().strip().lower() in ("y", "yes")


def end_typed() -> None:
    """After Ctrl-C or Ctrl-D at a terminal that shows what is typed: what comes next begins a line."""
    if is_asked() and is_terminal():
        _line_is_open["stderr"] |= not (_line_is_open["stdout"] and sys.stdout.isatty())
        _close_lines()


def ask_text(question: str, checked: Callable[[str], str]) -> str:
    """The answer to a question on stderr, asked again until `checked` takes it, which may raise `InvalidInput`.

    Raises `KeyboardInterrupt` where there will be no answer (Ctrl-C, Ctrl-D).
    """
    from pie_engine.errors import InvalidInput

    while True:
        _close_lines()
        passed_on(question)
        answer = _typed()
        if not answer:
            raise KeyboardInterrupt
        try:
            return checked(answer.strip())
        except InvalidInput as wrong:
            error(wrong.message, wrong.hint)


def _typed() -> str:
    """The answer to a question, with the end of its line; empty after Ctrl-D."""
    answer = ""
    try:
        answer = sys.stdin.readline()
    finally:
        _line_is_open["stderr"] = not answer.endswith("\n")
        _close_lines()
    return answer


def ask_secret(question: str) -> str:
    """What is typed without being shown; where stdin is no terminal, all that comes from there.

    Without a line's end behind it. Raises `InvalidInput` where that is no text.
    """
    if is_asked():
        import getpass

        from pie_cli.client import interruptible

        _close_lines()
        try:
            # Or Ctrl-C would leave the terminal without its echo.
            with interruptible():
                return getpass.getpass(question, stream=sys.stderr)
        except EOFError:
            return ""
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError:
        from pie_engine.errors import InvalidInput

        raise InvalidInput("what comes from stdin is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Aligned columns on stdout; the columns of `right` hold numbers."""
    for line in table_lines(header, rows, right=right):
        data_line(line)


def table_lines(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()
) -> list[str]:
    """What `table` writes."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = ["  ".join(_aligned(cell, widths[i], i in right) for i, cell in enumerate(line)).rstrip() for line in lines]
    return [paint_data(texts[0], BOLD), *texts[1:]]


def data_width() -> int | None:
    """Characters of a line on stdout; None: it is no terminal, and a line may be as long as it is."""
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None


@contextmanager
def screen() -> Iterator[Callable[[Sequence[str]], None]]:
    """Shows lines on stdout, each time in place of those before; where that is no terminal, below them.

    On a terminal they have a screen of their own, which goes away at the end; what does not fit is left out, and said.
    """
    if not sys.stdout.isatty():
        yield lambda lines: data("".join(f"{line}\n" for line in lines))
        return
    data(_ENTER_SCREEN)
    try:
        yield lambda lines: data(_HOME + "".join(f"{line}{_CLEAR_LINE}\r\n" for line in _fitting(lines)) + _CLEAR_REST)
    finally:
        data(_LEAVE_SCREEN)
        _line_is_open["stdout"] = False


def _fitting(lines: Sequence[str]) -> list[str]:
    width, height = os.get_terminal_size(sys.stdout.fileno())
    room = max(height - 2, 1)
    shown = [_cut(line, width) for line in lines[:room]]
    return [*shown, f"… {len(lines) - room} more lines"] if len(lines) > room else shown


def _cut(line: str, width: int) -> str:
    if line.startswith(_BOLD_BEGIN):
        return paint_data(_cut(line.removeprefix(_BOLD_BEGIN).removesuffix(_END), width), BOLD)
    return line if len(line) <= width else line[: width - 1] + "…"


class Steps:
    """Long work as it is reported: a moving bar on a terminal, else a line for each new step."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._last = ""

    def show(self, text: str, fraction: float | None = None) -> None:
        if self._bar is not None:
            self._move(self._bar, text, fraction)
        elif text != self._last:
            note(f"{text} …")
        self._last = text

    def _move(self, bar: Progress, text: str, fraction: float | None) -> None:
        if self._task is None or text != self._last:
            if self._task is not None:
                bar.remove_task(self._task)
            self._task = bar.add_task(text, total=None)
        if fraction is not None:
            bar.update(self._task, total=1.0, completed=fraction)


@contextmanager
def steps() -> Iterator[Steps]:
    """Where long work shows what it does, on stderr. The bar goes away at the end."""
    if not is_terminal():
        yield Steps(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    _close_lines()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        yield Steps(bar)


def _close_lines() -> None:
    """A line of ours starts at the margin, also where the terminal shows a program's open line."""
    if _line_is_open["stderr"]:
        passed_on("\n")
    if _line_is_open["stdout"] and sys.stdout.isatty():
        end_line()


def _has_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _aligned(cell: str, width: int, is_right: bool) -> str:
    return cell.rjust(width) if is_right else cell.ljust(width)


def _forget(stream: TextIO) -> None:
    """Point it at nothing, so that the flush at exit has nobody to complain to."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
