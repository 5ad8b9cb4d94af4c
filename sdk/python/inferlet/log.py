"""Messages for whoever runs the program; `pie logs` shows them. They are no part of the program's output.

>>> log.info("tried", n, "candidates")
"""

from __future__ import annotations

import logging
import sys

from inferlet import _transport


def debug(*values: object) -> None:
    """Details that only help while looking for a fault. The values are joined by spaces, as `print` does."""
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
    text = " ".join(str(value) for value in values)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


class HostHandler(logging.Handler):
    """Takes what goes to the standard `logging` module and has no other handler."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record to the log of the process."""
        names = {logging.DEBUG: "DEBUG", logging.INFO: "INFO", logging.WARNING: "WARNING"}
        _emit(names.get(record.levelno // 10 * 10, "ERROR"), (self.format(record),))
