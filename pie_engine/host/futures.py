"""What a program can wait for: operations of cores, messages of its client, streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, TypeVar

from pie_engine.errors import NotFound

TERMINATION = 0
"""The reserved future by which a program is asked to end."""


class Future:
    """One handle. A one-shot future becomes ready once, a stream again and again."""

    kind: ClassVar[str] = "a future"
    is_stream = False
    of_client: ClassVar[str] = ""
    """What its client has to do for it, where it is one of those."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    @property
    def is_at_core(self) -> bool:
        """A core has to say something before its program can go on with it."""
        return False

    def forget(self) -> None:
        """Nobody wants the result any more: call off what can be called off."""


F = TypeVar("F", bound=Future)


class FutureTable:
    """The futures of one program, and which of them have become ready since it last looked."""

    def __init__(self) -> None:
        self._futures: dict[int, Future] = {}
        self._pending: set[int] = set()
        self._ready: dict[int, None] = {}

    def __iter__(self) -> Iterator[Future]:
        return iter(list(self._futures.values()))

    @property
    def pending(self) -> list[Future]:
        """Those that could still become ready."""
        return [self._futures[handle] for handle in self._pending]

    @property
    def has_pending(self) -> bool:
        """Whether anything could still become ready."""
        return bool(self._pending)

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    def add(self, future: Future) -> int:
        self._futures[future.handle] = future
        self._pending.add(future.handle)
        return future.handle

    def notify(self, handle: int) -> bool:
        """It is ready; False if it is not there any more."""
        future = self._futures.get(handle)
        if handle != TERMINATION and future is None:
            return False
        self._ready[handle] = None
        if future is not None and not future.is_stream:
            self._pending.discard(handle)
        return True

    def take_ready(self) -> list[int]:
        ready = list(self._ready)
        self._ready.clear()
        return ready

    def get(self, handle: int, kind: type[F]) -> F:
        future = self._futures.get(handle)
        if not isinstance(future, kind):
            raise NotFound(f"future {handle} is not {kind.kind}, or is done with", hint="each result is taken once")
        return future

    def remove(self, handle: int) -> Future | None:
        self._pending.discard(handle)
        self._ready.pop(handle, None)
        return self._futures.pop(handle, None)
