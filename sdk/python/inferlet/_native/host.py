"""The host at the other end of a socket, for `_transport.connect`."""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from inferlet import errors
from inferlet._native.frames import Connection, Gone
from inferlet.testing import _records

_ENUMS: dict[str, type[enum.Enum]] = {"finish": _records.Finish, "kind": _records.ChildEventKind}
"""Fields of results that hold one."""


_SDK = f"{Path(__file__).parents[1]}{os.sep}"


def is_sdk(file: str) -> bool:
    """Whether a file is one of the SDK's."""
    return file.startswith(_SDK)


class NativeHost:
    """One attribute for each interface of the WIT, as `_transport.host` is to have them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._early: list[int] = []
        """Reported to a wait that was interrupted."""
        self._is_waiting = self._is_pressed = False
        self._then: Callable[[], None] | None = None
        """What is done when the wait that was interrupted has ended."""
        self.owns: Callable[[str], bool] = lambda _file: False
        """Whether a file is the program's own: there Ctrl-C is raised on the spot."""

    def __getattr__(self, interface: str) -> Interface:
        found = Interface(self, interface)
        setattr(self, interface, found)
        return found

    def call(self, interface: str, function: str, arguments: tuple[Any, ...]) -> Any:
        """Raises the `PieError` that the host answers with, and `Cancelled` when the process has ended."""
        try:
            self.connection.send("call", interface, function, [_plain(argument) for argument in arguments])
            return self._answer_of(self.connection.receive())
        except Gone:
            raise _ended() from None

    def wait_any(self, timeout_us: int | None) -> list[int]:
        """`futures.wait-any`. Ctrl-C is raised here; what was reported meanwhile, the next one returns."""
        if self._early:
            timeout_us = 0
        try:
            self.connection.send("call", "futures", "wait-any", [timeout_us])
            ready = self._early + self._wait_answer()
        except Gone:
            raise _ended() from None
        self._early = []
        if self._is_pressed:
            self._early, self._is_pressed = ready, False
            raise KeyboardInterrupt
        if self._then is not None:
            # It may wait itself, and is given what was reported.
            self._early, then, self._then = ready, self._then, None
            then()
            ready, self._early = self._early, []
        return ready

    @property
    def is_waiting(self) -> bool:
        """Whether a wait is under way."""
        return self._is_waiting

    def interrupt(self, then: Callable[[], None]) -> None:
        """End the wait that is under way, and do `then` at its end. For handlers of signals."""
        if self._then is None:
            self._then = then
            with contextlib.suppress(Gone):
                self.connection.send("interrupt")

    def _wait_answer(self) -> list[int]:
        self._is_waiting = True
        try:
            if self._is_pressed:
                self.connection.send("interrupt")
            return list(self._answer_of(self.connection.receive()))
        finally:
            self._is_waiting = False

    def on_ctrl_c(self, _number: int, frame: FrameType | None) -> None:
        """For SIGINT: raised on the spot in the program's own code. In the SDK's a wait ends, or the next one does, so
        that calls have their answers and its objects are whole; the second time it is raised there, too."""
        if self._is_pressed and self._is_waiting:
            return  # it is ending
        if self._is_pressed or self._is_own(frame):
            self._is_pressed = False
            raise KeyboardInterrupt
        self._is_pressed = True
        if self._is_waiting:
            with contextlib.suppress(Gone):
                self.connection.send("interrupt")

    def _is_own(self, frame: FrameType | None) -> bool:
        """Of the program and the SDK, whether the program is the inner one."""
        while frame is not None and not is_sdk(frame.f_code.co_filename):
            if self.owns(frame.f_code.co_filename):
                return True
            frame = frame.f_back
        return False

    def _answer_of(self, frame: Any) -> Any:
        match frame:
            case ["ok", value]:
                return _records_of(value)
            case ["error", code, message, retry]:
                raise errors.error_of(code.replace("-", "_"), message, retry)
            case _:
                raise errors.Internal(f"the host answered {frame!r:.200}")


class Interface:
    """Its functions, and its records and enumerations, under the names of the generated bindings."""

    def __init__(self, host: NativeHost, name: str) -> None:
        self._host = host
        self._name = name

    def __getattr__(self, name: str) -> Any:
        found: Any
        if name[0].isupper():
            found = getattr(_records, name)
        elif (self._name, name) == ("futures", "wait_any"):
            found = self._host.wait_any
        else:
            found = self._function(name.replace("_", "-"))
        setattr(self, name, found)
        return found

    def _function(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: self._host.call(self._name, name, arguments)


def _plain(value: Any) -> Any:
    """A record as a dict, an enumeration as its name in the WIT."""
    if isinstance(value, enum.Enum):
        return value.name.lower().replace("_", "-")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _records_of(value: Any) -> Any:
    """What `_plain` would have made of records."""
    if isinstance(value, list):
        return [_records_of(item) for item in value] if value and isinstance(value[0], dict) else value
    if not isinstance(value, dict):
        return value
    return SimpleNamespace(**{name: _field(name, item) for name, item in value.items()})


def _field(name: str, value: Any) -> Any:
    if name in _ENUMS and value is not None:
        return _ENUMS[name][value.upper()]
    return _records_of(value)


def _ended() -> errors.PieError:
    return errors.Cancelled("the process has ended", hint="`pie logs` shows how")
