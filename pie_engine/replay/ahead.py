"""What of a recording a program has not reached yet."""

from __future__ import annotations

from collections.abc import Iterator

from pie_engine.protocol.recording import Call, Event, Fail


class Ahead:
    """Entries, read when somebody looks at them and forgotten when they are past."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._read: list[Event] = []
        self._num_past = 0
        """Calls."""

    def __iter__(self) -> Iterator[Event]:
        """From the next one to the last."""
        index = 0
        while index < len(self._read) or self._can_read():
            yield self._read[index]
            index += 1

    def number_of(self, entry: Event | None) -> int:
        """Which of all calls it is, from 1; None: the one that would come behind the last."""
        number = self._num_past + 1
        for other in self:
            if other is entry:
                break
            number += _is_call(other)
        return number

    def go_past(self, entry: Event | None) -> Iterator[Event]:
        """Forgets all up to `entry`, and it as well, or all there are; gives them one by one."""
        while self._read or self._can_read():
            first = self._read.pop(0)
            self._num_past += _is_call(first)
            yield first
            if first is entry:
                return

    def _can_read(self) -> bool:
        entry = next(self._events, None)
        if entry is not None:
            self._read.append(entry)
        return entry is not None


def _is_call(entry: Event) -> bool:
    return isinstance(entry, Call | Fail)
