"""The fake host's client, and the process that the client sees."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from inferlet.errors import NotFound
from inferlet.testing._children import FakeChildren
from inferlet.testing._records import Level, Output


class FakeClient(FakeChildren):
    """The interfaces `session`, `runtime` and `log`."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox: deque[str] = deque()
        """As JSON."""
        self.messages: list[Any] = []
        self.logs: list[tuple[str, str]] = []
        self.printed: list[tuple[str, str]] = []
        self.stored_code: dict[str, str] = {}
        self.places: list[tuple[str, str]] = []
        self.secrets: dict[str, str] = {}
        self._receives: deque[int] = deque()
        self._promised: dict[int, str] = {}
        self.session = self._interface(
            "session",
            send=lambda value: self.messages.append(json.loads(value)),
            receive=self._receive,
            finish_receive=lambda handle: self._promised.pop(handle),
            drain=lambda: self._new_handle(is_ready=True),
            finish_drain=lambda handle: None,
        )
        self.runtime = self._interface(
            "runtime",
            process_id=lambda: "test-0001",
            program=lambda: "test",
            version=lambda: "0.0.0",
            store_code=lambda path, code: self.stored_code.update({path: code}),
            at=lambda place, task: self.places.append((place, task)),
            secret=self._secret,
            launch=self._launch,
            next_of_child=self._next_of_child,
            send_to_child=self._send_to_child,
            terminate_child=self._terminate_child,
        )
        self.log = self._interface("log", emit=self._emit, write=self._write)
        self.log.Level, self.log.Output = Level, Output

    def _secret(self, name: str) -> str:
        if name not in self.secrets:
            raise NotFound(
                f"this program has no secret `{name}`", hint=f'`secrets={{"{name}": …}}` of the test gives it'
            )
        return self.secrets[name]

    def post(self, message: Any) -> None:
        """A message of the client."""
        self.inbox.append(json.dumps(message))
        self._match_receives()

    def _receive(self) -> int:
        handle = self._new_handle()
        self._receives.append(handle)
        self._match_receives()
        return handle

    def _match_receives(self) -> None:
        """Promise each waiting message to the longest waiting `receive`."""
        while self._receives and self.inbox:
            handle = self._receives.popleft()
            self._promised[handle] = self.inbox.popleft()
            self._ready.append(handle)

    def _emit(self, level: Level, message: str) -> None:
        self.logs.append((level.name.lower(), message))

    def _write(self, output: Output, text: str) -> None:
        self.printed.append((output.name.lower(), text))
