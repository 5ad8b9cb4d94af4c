"""Events of a process, out of server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec

from pie_engine.errors import ErrorInfo


class Event(Enum):
    """What happened; the value that comes with it is named here."""

    Started = "started"
    """dict: `program`, `version`."""
    Message = "message"
    """What the program sent: any JSON value."""
    Stdout = "stdout"
    """str: what it printed."""
    Stderr = "stderr"
    """str."""
    Log = "log"
    """dict: `level`, `message`."""
    Trace = "trace"
    """dict: part of a recording; only for who has asked for it."""
    Return = "return"
    """The value of `main`. Nothing follows."""
    Error = "error"
    """`ErrorInfo`. Nothing follows."""

    @property
    def is_terminal(self) -> bool:
        return self in (Event.Return, Event.Error)


class Arrival(msgspec.Struct, frozen=True):
    """One event as it came in."""

    seq: int
    event: Event
    value: Any


_KINDS = {event.value.encode(): event for event in Event}
_decode = msgspec.json.Decoder().decode
_decode_error = msgspec.json.Decoder(ErrorInfo).decode


class Frames:
    """Bytes of an event stream in, what lies between two empty lines out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def split(self, data: bytes) -> Iterator[bytes]:
        """Those that are complete with `data`; to be read to the end."""
        # What was searched before is not searched again: an event may be as large as a program's output limit.
        start, search_from = 0, max(0, len(self._buffer) - 1)
        self._buffer += data
        while (end := self._buffer.find(b"\n\n", search_from)) >= 0:
            yield bytes(self._buffer[start:end])
            start = search_from = end + 2
        del self._buffer[:start]


class EventParser:
    """Bytes of an event stream in, events out. Comments and kinds of a newer daemon are skipped."""

    def __init__(self) -> None:
        self._frames = Frames()

    def feed(self, data: bytes) -> list[Arrival]:
        return [arrival for frame in self._frames.split(data) if (arrival := _parsed(frame)) is not None]


def _parsed(frame: bytes) -> Arrival | None:
    seq, kind, data = 0, b"", []
    for line in frame.split(b"\n"):
        name, _, value = line.partition(b": ")
        if name == b"id":
            seq = int(value)
        elif name == b"event":
            kind = value
        elif name == b"data":
            data.append(value)
    event = _KINDS.get(kind)
    if event is None:
        return None
    text = b"\n".join(data)
    return Arrival(seq, event, _decode_error(text) if event is Event.Error else _decode(text))
