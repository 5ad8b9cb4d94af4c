"""A pause of a process: its program does not run, and its time stands still."""

from __future__ import annotations

from collections.abc import Callable


class Pause:
    """Of one process; it may be paused again and again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began: float | None = None
        self._spent_s = 0.0
        self._put_off: list[Callable[[], None]] = []

    @property
    def is_on(self) -> bool:
        return self._began is not None

    @property
    def seconds(self) -> float:
        """In all pauses together, so far."""
        return self._spent_s + (0.0 if self._began is None else self._clock() - self._began)

    def begin(self) -> None:
        if self._began is None:
            self._began = self._clock()

    def put_off(self, action: Callable[[], None]) -> None:
        """Do it when this pause is over."""
        self._put_off.append(action)

    def end(self) -> None:
        """What was put off happens now."""
        self._spent_s, self._began = self.seconds, None
        actions, self._put_off = self._put_off, []
        for action in actions:
            action()
