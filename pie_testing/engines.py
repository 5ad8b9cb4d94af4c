"""Where programs of tests run. Both engines give the same events and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from pie_engine.config import ModelSection
from pie_engine.hub.places import PIE_TINY
from pie_engine.protocol.plan import NO_USAGE, Usage
from pie_engine.protocol.program import Bundle
from pie_testing.fake import FakeModel
from pie_testing.result import Event, Seen

OnMessage = Callable[[Any], None]
"""Told of each message of the program, which goes on meanwhile."""


@dataclass(frozen=True)
class Models:
    """What a test runs on: a model by its name or path, or else its fake one."""

    fake: FakeModel
    path: str = ""

    @property
    def section(self) -> ModelSection:
        """fp32 on every machine, so that greedy tokens are the same ones. pie-tiny is not worth compiling kernels."""
        if not self.path:
            return self.fake.section
        section = ModelSection(path=self.path, dtype="float32")
        return msgspec.structs.replace(section, kernels="torch", num_threads=1) if self.path == PIE_TINY else section


@dataclass(frozen=True)
class Order:
    """A program to run for a test."""

    bundle: Bundle
    arguments: Mapping[str, Any]
    models: Models
    user: str
    """Of this test, so that it finds nothing of another one's."""
    secrets: Mapping[str, str]
    number: int
    """Of the programs of the test, from 0."""
    endowment: float | None = None
    """Its credits; None: as configured."""
    programs: tuple[Bundle, ...] = ()
    """What it can launch."""


@dataclass
class Took:
    """What a program has taken. None: this engine does not see it."""

    usage: Usage = NO_USAGE
    num_passes: int | None = None
    num_pages: int | None = None
    seen: Seen | None = field(default=None)


class Launched(Protocol):
    """A program that runs, or has ended."""

    @property
    def events(self) -> list[Event]:
        """All so far."""

    @property
    def took(self) -> Took: ...

    def send(self, value: Any) -> None:
        """A message to the program."""

    def terminate(self) -> None: ...

    def wait(self, timeout_s: float, on_message: OnMessage) -> None:
        """Until it has ended. Raises `LimitExceeded` after `timeout_s`, `InvalidInput` when it waits for what nobody
        sends."""

    def follow(self) -> AsyncIterator[Event]:
        """Its events from the first one, as they come."""


class Engine(Protocol):
    """One for the whole run of pytest."""

    def launch(self, order: Order) -> Launched: ...

    def close(self) -> None: ...
