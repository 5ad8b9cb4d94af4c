"""Messages for whoever runs the program; `pie logs` shows them. They are no part of the program's output.

>>> log.info("tried", n, "candidates")
>>> log.info("tried %d candidates", n)
"""

from __future__ import annotations

import logging
import sys

from inferlet import _transport


def debug(*values: object) -> None:
    """Details that only help while looking for a fault.

    The values are put into a text that has places for them (`%s`), as `logging` does, or else joined by spaces.
    """
    _emit("DEBUG", values)


def info(*values: object) -> None:
    """What goes on."""
    _emit("INFO", values)


def warning(*values: object) -> None:
    """Something is not as it should be, and the program goes on."""
    _emit("WARNING", values)


def error(*values: object) -> None:
    """Something failed."""
    _emit("ERROR", values)


def _emit(level: str, values: tuple[object, ...]) -> None:
    sys.stdout.flush()
    wire = _transport.host.log
    _transport.call(wire.emit, wire.Level[level], _printable(values))


def _printable(values: tuple[object, ...]) -> str:
    text = _formatted(values)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _formatted(values: tuple[object, ...]) -> str:
    pattern, *rest = values or ("",)
    if isinstance(pattern, str) and "%" in pattern and rest:
        only = rest[0] if len(rest) == 1 and isinstance(rest[0], dict) else tuple(rest)
        try:
            return pattern % only
        except (TypeError, ValueError, KeyError):
            pass  # a percent sign that is only one
    return " ".join(str(value) for value in values)


class HostHandler(logging.Handler):
    """Takes what goes to the standard `logging` module; it stands on the root logger of the runtime."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record to the log of the process."""
        names = {logging.DEBUG: "DEBUG", logging.INFO: "INFO", logging.WARNING: "WARNING"}
        _emit(names.get(record.levelno // 10 * 10, "ERROR"), (self.format(record),))
