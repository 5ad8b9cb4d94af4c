"""Streams of snapshots in files: one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from pie_engine.errors import InvalidInput
from pie_engine.protocol.stats import SNAPSHOT_VERSION, Snapshot

_decoder = msgspec.json.Decoder(Snapshot)


class Recorder:
    """Writes every snapshot as it comes. Raises `InvalidInput` where the file is there, or cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        """Why it writes no more."""
        self.num_written = 0
        try:
            self._file: BinaryIO | None = path.open("xb")
        except FileExistsError:
            raise InvalidInput(f"`{path}` is there already", hint="remove it, or record to another file") from None
        except OSError as error:
            raise InvalidInput(f"cannot write `{path}`: {error.strerror}") from error

    def write(self, snapshot: Snapshot) -> None:
        """A disk that is full ends the recording, and leaves what it has so far."""
        if self._file is None:
            return
        try:
            self._file.write(msgspec.json.encode(snapshot) + b"\n")
            self._file.flush()
            self.num_written += 1
        except OSError as error:
            self.problem = f"the recording has ended: {error.strerror}"
            self.close()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self.problem = self.problem or f"the recording has ended: {error.strerror}"


def read(path: Path) -> Iterator[Snapshot]:
    """The snapshots of a recording. A last line that was cut off is left out.

    Raises `InvalidInput` for what is no recording, naming the line.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"cannot read `{path}`: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") and number > 1:
                return
            yield _decoded(line, path, number)


def _decoded(line: bytes, path: Path, number: int) -> Snapshot:
    try:
        snapshot = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "`pie monitor --record FILE` makes recordings; those of `pie run --record` are for `pie replay`"
        raise InvalidInput(f"line {number} of `{path}` is no snapshot: {error}", hint=hint) from None
    if snapshot.version > SNAPSHOT_VERSION:
        raise InvalidInput(
            f"`{path}` is of a newer Pie: its snapshots have version {snapshot.version}, this one reads "
            f"{SNAPSHOT_VERSION}",
            hint="replay it with the Pie that has recorded it",
        )
    return snapshot
