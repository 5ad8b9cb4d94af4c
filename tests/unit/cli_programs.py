"""Programs that a stand-in of the daemon has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pie_cli import console
from pie_engine.config import load_config
from tests.unit.cli_standin import Inbox, StandIn, Step, short_home

PROMPT = {"name": "prompt", "schema": {"type": "string"}}
COUNT = {"name": "count", "schema": {"type": "integer"}, "required": False, "default": 1}


def chat(given: dict[str, Any], _inbox: Inbox) -> Iterator[Step]:
    for _ in range(given.get("count", 1)):
        yield "message", f"{given['prompt']} "
    yield "return", {"said": given["prompt"]}


def echo(_given: dict[str, Any], inbox: Inbox) -> Iterator[Step]:
    while (value := inbox.get()) is not None:
        yield "message", f"got {value}\n"
    yield "return", None


def endless(_given: dict[str, Any], inbox: Inbox) -> Iterator[Step]:
    yield "message", "working\n"
    while inbox.is_empty():
        yield "message", "x" * 4096 + "\n"
        time.sleep(0.001)
    yield "error", {"code": "cancelled", "message": "the process was terminated"}


def deaf(_given: dict[str, Any], _inbox: Inbox) -> Iterator[Step]:
    yield "message", "working\n"
    time.sleep(5)


def fails(_given: dict[str, Any], _inbox: Inbox) -> Iterator[Step]:
    yield "error", {"code": "exception", "message": "ValueError: no", "traceback": "Traceback …\nValueError: no\n"}


def only_process(daemon: StandIn) -> Any:
    (process,) = daemon.processes.values()
    return process


@contextmanager
def daemon_with_programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that has them, in a home of its own; the standard streams are none that somebody looks at."""
    monkeypatch.setattr(console, "_line_is_open", {"stdout": False, "stderr": False})
    with short_home(monkeypatch), StandIn(load_config().paths.api_socket) as standin:
        standin.add("chat", chat, parameters=[PROMPT, COUNT], doc="Says it again.")
        standin.add("echo", echo)
        standin.add("endless", endless)
        standin.add("fails", fails)
        yield standin
