"""A recording: every call that a program made to its host, what came of each, and the time and chance that it saw.

A file is `MAGIC`, the version as one byte, and frames: two little-endian u32, the size of the payload and its CRC-32,
then the payload, zlib of a MessagePack list of entries. It is written as the program runs, so one that was cut off is
as good as it got. `docs/record-replay.md` says what the entries are for.
"""

from __future__ import annotations

import base64
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import msgspec

from pie_engine.errors import InvalidInput, NotFound
from pie_engine.protocol.plan import NO_USAGE, Usage
from pie_engine.protocol.program import Bundle, Limits

VERSION = 1
MAGIC = b"pie-recording\0"
WAIT = "futures.wait-any"
MAX_FRAME_BYTES = 1 << 30
"""Uncompressed: a bundle of the largest size fits ten times."""
_FRAME = struct.Struct("<II")


class Entry(msgspec.Struct, frozen=True, array_like=True, tag=str.lower):
    """Base of what a recording holds. Times are in microseconds since the launch."""


class Head(Entry, frozen=True):
    """The first entry."""

    program: str
    version: str
    digest: str
    pid: str
    bundle: Bundle
    arguments: list[str]
    """What `run` was given after the bundle: the input as JSON."""
    launched: float
    """Seconds since the epoch."""
    limits: Limits
    """Those that held."""
    secrets: list[str] = []
    """Names of secrets whose values are replaced by `[secret NAME]`."""
    runtime: str = ""
    """Build of the Python runtime that it ran in; empty for a standalone component."""


class Reads(msgspec.Struct, frozen=True, array_like=True):
    """What the program read of its surroundings since the entry before."""

    monotonic: list[int] = []
    """Nanoseconds, each since the one before; the very first since the clock's own start."""
    wall: list[int] = []
    """Nanoseconds since the epoch."""
    random: bytes = b""


NO_READS = Reads()


class Call(Entry, frozen=True):
    """A call to the host that went well."""

    at: int
    took: int
    place: str
    """Line of the program, as `main.py:12 in main`; empty where none is known."""
    function: str
    """As `context.append`."""
    arguments: list[Any]
    result: Any
    reads: Reads = NO_READS


class Fail(Entry, frozen=True):
    """A call to the host that failed."""

    at: int
    took: int
    place: str
    function: str
    arguments: list[Any]
    error: tuple[str, str, bool]
    """Code as in the WIT, message, and whether a retry can succeed."""
    reads: Reads = NO_READS


class Piped(Entry, frozen=True):
    """Text of a stream that went to the client without the program."""

    at: int
    text: str


class End(Entry, frozen=True):
    """The last entry, of a recording that was not cut off."""

    at: int
    kind: Literal["return", "error"]
    value: str
    """JSON: the value of `main`, or an `ErrorInfo`."""
    usage: Usage = NO_USAGE
    reads: Reads = NO_READS


class Full(Entry, frozen=True):
    """The limit was reached: nothing more was written down."""

    limit_mb: float


Event = Call | Fail | Piped | End | Full
_decode_entries = msgspec.msgpack.Decoder(list[Head | Event]).decode
_decode_bytes = msgspec.json.Decoder().decode


class Replayable(Protocol):
    """What a replay needs of a recording, wherever it is."""

    @property
    def head(self) -> Head: ...

    @property
    def end(self) -> End | None:
        """None: it was cut off."""

    @property
    def limit_mb(self) -> float | None:
        """At which it was cut off, if it was for that."""

    def events(self) -> Iterator[Event]:
        """All behind the head, in order."""


class Recording(msgspec.Struct, frozen=True):
    """A whole one, in memory."""

    head: Head
    entries: list[Event]

    def events(self) -> Iterator[Event]:
        return iter(self.entries)

    @property
    def calls(self) -> list[Call | Fail]:
        return [entry for entry in self.entries if isinstance(entry, Call | Fail)]

    @property
    def end(self) -> End | None:
        last = self.entries[-1] if self.entries else None
        return last if isinstance(last, End) else None

    @property
    def limit_mb(self) -> float | None:
        return next((entry.limit_mb for entry in reversed(self.entries) if isinstance(entry, Full)), None)


class RecordingFile:
    """One on the disk, of which no more is in memory than what is looked at. It must not change meanwhile."""

    def __init__(self, path: Path) -> None:
        """Reads it once, so that what is wrong is known before a program runs. Raises as `read_recording`."""
        self._path = path
        with _opened(path) as file:
            self._num_bytes = os.fstat(file.fileno()).st_size
            entries = _entries(file, self._num_bytes, str(path))
            self.head = _head(entries, str(path))
            self.end: End | None = None
            self.limit_mb: float | None = None
            for entry in entries:
                self.end = entry if isinstance(entry, End) else None
                if isinstance(entry, Full):
                    self.limit_mb = entry.limit_mb

    def events(self) -> Iterator[Event]:
        with _opened(self._path) as file:
            entries = _entries(file, self._num_bytes, str(self._path))
            _head(entries, str(self._path))
            yield from entries  # type: ignore[misc]


class RecordingWriter:
    """Writes a file out of the `trace` events of a process, as they come."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        file.write(MAGIC + bytes([VERSION]))
        self.num_frames = 0

    def take(self, data: dict[str, Any]) -> None:
        """The data of one `trace` event; those of other taps are passed over. Raises `InvalidInput`."""
        if data["tap"] != "record":
            return
        if data["version"] != VERSION:
            raise _other_version("the daemon's recording", data["version"])
        full_mb = data.get("full_mb")
        write_frame(self._file, base64.b64decode(data["data"]) if full_mb is None else pack([Full(full_mb)]))
        self.num_frames += 1
        # What is there shall survive whoever writes it.
        self._file.flush()


def pack(entries: Iterable[Entry]) -> bytes:
    """The payload of a frame."""
    return zlib.compress(msgspec.msgpack.encode(list(entries)), 1)


def write_frame(file: IO[bytes], payload: bytes) -> None:
    file.write(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)


def read_recording(path: Path) -> Recording:
    """All of it. Raises `NotFound`, or `InvalidInput` saying what is wrong with the file."""
    with _opened(path) as file:
        return _whole(file, os.fstat(file.fileno()).st_size, str(path))


def parse(data: bytes, name: str) -> Recording:
    """The bytes of the file `name`. Raises `InvalidInput`."""
    return _whole(BytesIO(data), len(data), name)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"there is no recording {path}", hint="`pie run --record FILE PROGRAM` makes one") from None
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file


def _whole(file: IO[bytes], num_bytes: int, name: str) -> Recording:
    entries = _entries(file, num_bytes, name)
    return Recording(_head(entries, name), list(entries))  # type: ignore[arg-type]


def _head(entries: Iterator[Head | Event], name: str) -> Head:
    """The first one."""
    head = next(entries, None)
    if not isinstance(head, Head):
        raise InvalidInput(f"{name} was cut off before its program began: nothing can be replayed")
    return head


def _entries(file: IO[bytes], num_bytes: int, name: str) -> Iterator[Head | Event]:
    """All of the first `num_bytes` of a file, and one `Head` at most, which is the first."""
    begin = file.read(len(MAGIC) + 1)
    if not begin.startswith(MAGIC) or len(begin) <= len(MAGIC):
        raise InvalidInput(f"{name} is not a recording", hint="`pie run --record FILE PROGRAM` makes one")
    if begin[-1] != VERSION:
        raise _other_version(name, begin[-1])
    has_begun = False
    for payload in _frames(file, num_bytes, name):
        for entry in _unpacked(payload, name):
            if has_begun and isinstance(entry, Head):
                raise _damaged(name, "it begins twice")
            has_begun = True
            yield entry


def _frames(file: IO[bytes], num_bytes: int, name: str) -> Iterator[bytes]:
    """Payloads of the frames from here on; one that is cut off at the end does not count."""
    while (start := file.tell()) + _FRAME.size <= num_bytes:
        size, checksum = _FRAME.unpack(file.read(_FRAME.size))
        if file.tell() + size > num_bytes:
            return
        payload = file.read(size)
        if zlib.crc32(payload) != checksum:
            raise _damaged(name, f"the checksum at byte {start} is wrong")
        yield payload


def _unpacked(payload: bytes, name: str) -> list[Head | Event]:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(payload, MAX_FRAME_BYTES)
        if inflater.unconsumed_tail:
            raise _damaged(name, "a frame is larger than any that Pie writes")
        return _decode_entries(raw)
    except (zlib.error, msgspec.DecodeError) as error:
        raise _damaged(name, str(error)) from error


def _damaged(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"{name} is damaged: {why}", hint="record it again")


def _other_version(name: str, version: object) -> InvalidInput:
    age = "newer" if isinstance(version, int) and version > VERSION else "another"
    return InvalidInput(
        f"{name} has version {version}, of {age} Pie, and this one reads version {VERSION}",
        hint="replay it with the Pie that recorded it, or record it again",
    )
