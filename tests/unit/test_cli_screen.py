"""`console.screen`: pictures in place on a terminal, one after the other elsewhere."""

from __future__ import annotations

import contextlib
import io
import os

import pytest

from pie_cli import console

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """20 columns, 6 lines."""
    monkeypatch.setattr("os.get_terminal_size", lambda _fd: os.terminal_size((20, 6)))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def show_and_stop(*lines: str) -> None:
    with console.screen() as show:
        show(lines)
        raise KeyboardInterrupt


def test_elsewhere_it_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with console.screen() as show:
        show(["a", "b"])
        show(["c"])
    assert capsys.readouterr().out == "a\nb\nc\n"


def test_a_terminal_gets_its_own_back_whatever_happens(terminal: Terminal) -> None:
    with contextlib.redirect_stdout(terminal):
        with pytest.raises(KeyboardInterrupt):
            show_and_stop("a")
        console.data_line("b")
    assert terminal.getvalue() == f"{ENTER}\x1b[Ha\x1b[K\r\n\x1b[J{LEAVE}b\n"


def test_what_does_not_fit_is_left_out_and_said(terminal: Terminal) -> None:
    with contextlib.redirect_stdout(terminal), console.screen() as show:
        show(console.table_lines(("A", "B"), [("x" * 15, "y" * 15)] * 9))
    picture = terminal.getvalue().removeprefix(ENTER + "\x1b[H").removesuffix("\x1b[J" + LEAVE)
    lines = [line.removesuffix("\x1b[K") for line in picture.split("\r\n")]
    assert lines == ["\x1b[1mA                B\x1b[0m", *["x" * 15 + "  yy…"] * 3, "… 6 more lines", ""]
