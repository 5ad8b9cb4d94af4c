"""A program of an embedded engine, as whoever has launched it sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from pie_engine.errors import ErrorInfo, InvalidInput, LimitExceeded
from pie_engine.protocol.plan import NO_USAGE, Usage
from pie_engine.protocol.to_gateway import Event
from pie_engine.protocol.to_host import Deliver, Terminate

if TYPE_CHECKING:
    from pie_engine.embedded.engine import Embedded

LOOK_S = 0.002
"""How often `follow` looks for what comes from outside."""


class EmbeddedProcess:
    """A launched program: its events as they come, and what it took."""

    def __init__(self, engine: Embedded, pid: str, secrets: Mapping[str, str]) -> None:
        """`secrets`: those that its children may name."""
        self.pid = pid
        self.secrets = secrets
        self.events: list[Event] = []
        """All so far; the last one is terminal when the program has ended."""
        self._engine = engine
        self._num_sent = 0
        self._passes_before = engine.num_passes
        self._num_passes = 0
        self._num_pages: dict[str, int] = {}

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1].is_terminal

    @property
    def error(self) -> ErrorInfo | None:
        """What it ended with, if it failed."""
        if not self.has_ended or self.events[-1].kind != "error":
            return None
        return msgspec.json.decode(self.events[-1].data, type=ErrorInfo)

    @property
    def value(self) -> object:
        """What `main` has returned. Raises the error that it ended with."""
        assert self.has_ended, f"process {self.pid} is still running"
        error = self.error
        if error is not None:
            raise error.raised()
        return msgspec.json.decode(self.events[-1].data)

    @property
    def usage(self) -> Usage:
        """Tokens of all its replies and passes; as it ends."""
        return self.events[-1].usage if self.has_ended else NO_USAGE

    @property
    def num_passes(self) -> int:
        """Steps that the models have run from its launch to its end."""
        return self._num_passes if self.has_ended else self._engine.num_passes - self._passes_before

    @property
    def num_pages(self) -> int:
        """The most KV pages that were in use at once meanwhile."""
        return sum(self._num_pages.values())

    def send(self, value: object) -> None:
        """A message of the client."""
        self._num_sent += 1
        self._engine.say(Deliver(self.pid, self._num_sent, msgspec.json.encode(value).decode()))

    def terminate(self) -> None:
        """Ask it to end."""
        self._engine.say(Terminate(self.pid))

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it has ended. Raises `InvalidInput` when it waits for a message, which nobody can send meanwhile, and
        `LimitExceeded` when it takes longer than `timeout_s`; it then still runs."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.has_ended:
            self.work(end)

    def work(self, end: float | None) -> None:
        """One turn of the engine, and the sleep until the next one, but not past `end`. Raises as `wait` does."""
        num_before = len(self.events)
        seconds = self._engine.turn()
        if self.has_ended:
            return
        now = time.monotonic()
        if end is not None and now >= end:
            raise LimitExceeded.of("wall_limit", f"{self.pid} has not ended in time")
        if seconds is None and len(self.events) == num_before:  # else what it said may be answered
            raise InvalidInput(
                f"{self.pid} waits for a message, and nobody sends one",
                hint="send what it waits for; `null` is the end of the input, as `pie run` sends it",
            )
        if seconds:
            time.sleep(seconds if end is None else min(seconds, end - now))

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """Its events behind number `after`, as they come, until it has ended; other tasks run meanwhile."""
        while True:
            while len(self.events) > after:
                after += 1
                yield self.events[after - 1]
            if self.has_ended:
                return
            seconds = self._engine.turn()
            if len(self.events) == after:
                await asyncio.sleep(LOOK_S if seconds is None else min(seconds, LOOK_S))

    # For the engine.

    def take(self, event: Event) -> None:
        self.events.append(event)
        if event.is_terminal:
            self._num_passes = self._engine.num_passes - self._passes_before
            self._engine.forget(self)

    def saw_pages(self, model: str, num_used: int) -> None:
        """KV pages that contexts hold now."""
        self._num_pages[model] = max(self._num_pages.get(model, 0), num_used)
