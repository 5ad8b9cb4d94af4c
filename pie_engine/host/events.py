"""What a process says: numbered events, kept until the gateway has stored them, bounded by its output limit."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from pie_engine.errors import InvalidInput
from pie_engine.protocol.plan import NO_USAGE, Usage
from pie_engine.protocol.to_gateway import TRACE_KIND, Event, EventKind

MAX_JOINED_CHARS = 64 * 1024

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_to_json = msgspec.json.encode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


def json_text(value: object) -> str:
    return _to_json(value).decode()


def one_line(text: str, what: str) -> str:
    """JSON that a program gave, checked, on one line: events end at line ends on their way to clients.

    Raises `InvalidInput` naming `what` it is and what is wrong with it.
    """
    try:
        _check_json(text)
    except msgspec.DecodeError as error:
        lone = _LONE_SURROGATE.search(_read_leniently(text))
        if lone is None:
            raise InvalidInput(f"{what} is not JSON: {error}") from error
        raise InvalidInput(
            f"{what} holds `\\u{ord(lone[0]):04x}`, half of a surrogate pair, which is no character",
            hint='`text.encode("utf-8", "replace").decode()` makes `?` of it',
        ) from error
    return json_text(msgspec.json.decode(text)) if "\n" in text or "\r" in text else text


def without_surrogates(text: str) -> str:
    """JSON that a program gave, with `?` for halves of surrogate pairs, which Python's own `json` lets through."""
    return _read_leniently(text).encode("utf-8", "replace").decode()


def _read_leniently(text: str) -> str:
    """With the characters themselves for escapes; as it is where it is not JSON for anybody."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


class TooMuchOutput(Exception):
    """Over `max_bytes` of a process, whose limit that is knows its `pid`."""

    def __init__(self, pid: str, max_bytes: int) -> None:
        super().__init__(pid)
        self.pid, self.max_bytes = pid, max_bytes


class Trace(Protocol):
    """Something that makes events now and then."""

    def flush_old(self) -> bool:
        """Make those that are due; whether there are some."""


class EventLog:
    """The events of one process."""

    def __init__(
        self,
        pid: str,
        max_bytes: int,
        redact: Callable[[str], str] | None = None,
        parent: EventLog | None = None,
    ) -> None:
        """`redact`: takes out of JSON what must not leave the process. `parent`: whose output this counts as, too."""
        self.pid = pid
        self._parent = parent
        self._redact = redact
        self.traces: list[Trace] = []
        """Who writes traces of the process here."""
        self.last_seq = 0
        self.has_ended = False
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._unsent: list[Event] = []
        self._unstored: deque[Event] = deque()
        self._open_kind: EventKind | None = None
        self._open_texts: list[str] = []
        self._num_open_chars = 0

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent or self._open_texts)

    @property
    def is_stored(self) -> bool:
        """Whether the gateway has everything, to the end."""
        return self.has_ended and not self._unsent and not self._unstored

    def add(self, kind: EventKind, data: str, usage: Usage = NO_USAGE) -> None:
        """Append; `data` is JSON. Only for what counts as no output of the program."""
        self.close_text()
        if self._redact is not None and kind != TRACE_KIND:  # packed, and redacted before it was
            data = self._redact(data)
        self.last_seq += 1
        self._unsent.append(Event(self.pid, self.last_seq, kind, data, time.time(), usage))

    def end(self, kind: EventKind, data: str, usage: Usage = NO_USAGE) -> None:
        """The terminal event; nothing comes after it."""
        assert not self.has_ended, f"process {self.pid} has ended already"
        self.add(kind, data, usage)
        self.has_ended = True

    def output(self, kind: EventKind, data: str) -> None:
        """Append JSON that counts as output. Raises `TooMuchOutput`."""
        self._count(data)
        self.add(kind, data)

    def write(self, kind: EventKind, text: str) -> None:
        """Text of a standard stream. What is written in one turn of the loop becomes one event. Raises
        `TooMuchOutput`."""
        self._count(text)
        if kind != self._open_kind or self._num_open_chars > MAX_JOINED_CHARS:
            self.close_text()
            self._open_kind = kind
        self._open_texts.append(text)
        self._num_open_chars += len(text)

    def take_unsent(self) -> list[Event]:
        """For the gateway; kept until it says that they are stored."""
        self.close_text()
        unsent, self._unsent = self._unsent, []
        self._unstored.extend(unsent)
        return unsent

    def unstored(self) -> list[Event]:
        """For a new gateway: what the one before may not have stored."""
        self.take_unsent()
        return list(self._unstored)

    def stored(self, seq: int) -> None:
        """Everything up to `seq` is safe."""
        while self._unstored and self._unstored[0].seq <= seq:
            self._unstored.popleft()

    def _count(self, text: str) -> None:
        num_bytes = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        payer: EventLog | None = self
        while payer is not None:
            if payer._num_bytes + num_bytes > payer._max_bytes:
                raise TooMuchOutput(payer.pid, payer._max_bytes)
            payer = payer._parent
        payer = self
        while payer is not None:
            payer._num_bytes += num_bytes
            payer = payer._parent

    def close_text(self) -> int:
        """Make an event of the text that is being joined; returns the number of the last event."""
        if self._open_texts:
            text, kind = "".join(self._open_texts), self._open_kind
            self._open_texts, self._open_kind, self._num_open_chars = [], None, 0
            assert kind is not None
            self.add(kind, json_text(text))
        return self.last_seq
