"""`log`: log records, and what the program prints."""

from __future__ import annotations

from typing import Literal

from pie_engine.host.events import json_text
from pie_engine.host.imports import Function
from pie_engine.host.process import Process


def emit(process: Process, level: str, message: str) -> None:
    process.output("log", json_text({"level": level, "message": message}))


def write(process: Process, output: Literal["stdout", "stderr"], text: str) -> None:
    process.write(output, text)


FUNCTIONS: dict[str, Function] = {"emit": emit, "write": write}
