"""Events of a process as they appear: text for people, or one JSON object a line."""

from __future__ import annotations

import json
from typing import Protocol

import msgspec

from pie_cli import console
from pie_engine.errors import ErrorInfo, PieError


class Printer(Protocol):
    shows_all: bool
    """Whether also the expected end of an interrupted program."""

    def show(self, kind: str, value: object) -> None:
        """One event. Raises `console.OutputClosed`."""

    def finish(self) -> None:
        """After the last event that there will be."""


class TextPrinter:
    """Messages and output as they come; what the program returns, unless it has been said already."""

    shows_all = False

    def __init__(self) -> None:
        self._said: list[str] = []

    def show(self, kind: str, value: object) -> None:
        match kind:
            case "message":
                self._message(value)
            case "stdout":
                console.data(str(value))
            case "stderr":
                console.passed_on(str(value))
            case "log":
                self._log(value)
            case "return":
                self._returned(value)
            case "error":
                self._error(value)

    def finish(self) -> None:
        console.end_line()

    def _message(self, value: object) -> None:
        if isinstance(value, str):
            self._said.append(value)
            console.data(value)
        else:
            console.data_line(_compact(value))

    def _log(self, value: object) -> None:
        if isinstance(value, dict):
            console.note(f"{value.get('level', 'info')}: {value.get('message', '')}")

    def _returned(self, value: object) -> None:
        if value is None or value == "".join(self._said):
            return
        console.data_line(value if isinstance(value, str) else _compact(value))

    def _error(self, value: object) -> None:
        console.end_line()
        error = as_error(value)
        if error.traceback:
            console.passed_on(error.traceback)
        if error.message not in error.traceback:
            console.error(error.message, error.hint)
        elif error.hint:
            console.show_hint(error.hint)


class JsonPrinter:
    """Every event as one JSON object a line: `event`, its `value`."""

    shows_all = True

    def show(self, kind: str, value: object) -> None:
        value = msgspec.to_builtins(value) if isinstance(value, ErrorInfo) else value
        console.data(_compact({"event": kind, "value": value}) + "\n")

    def finish(self) -> None:
        """Each line has ended already."""


def report(error: PieError) -> None:
    """An error that is not an event."""
    if error.traceback:
        console.passed_on(error.traceback)
    console.error(error.message, error.hint)


def as_error(value: object) -> ErrorInfo:
    """The value of an `error` event."""
    return value if isinstance(value, ErrorInfo) else msgspec.convert(value, ErrorInfo)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
