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


class EventParser:
    """Bytes of an event stream in, events out. Comments and kinds of a newer daemon are skipped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Arrival]:
        *frames, self._rest = (self._rest + data).split(b"\n\n")
        for frame in frames:
            arrival = _parsed(frame)
            if arrival is not None:
                yield arrival


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
