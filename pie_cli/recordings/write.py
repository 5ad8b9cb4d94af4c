"""Writes the recording of a process into a file, as its events come."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from pie_cli import console
from pie_cli.files import check_writable

if TYPE_CHECKING:
    from pie_engine.protocol.recording import RecordingWriter


class Recorder:
    """A context manager. What is in the file is whole at any time: whoever is interrupted has what came before."""

    def __init__(self, path: str) -> None:
        """Raises `InvalidInput` when the file cannot be written; it is not touched before there is something for it."""
        self.path = Path(path).expanduser()
        self.has_failed = False
        self._writer: RecordingWriter | None = None
        self._file: IO[bytes] | None = None
        check_writable(self.path, "the recording")

    @property
    def has_begun(self) -> bool:
        return self._writer is not None

    def take(self, data: dict[str, Any]) -> None:
        """One `trace` event. A disk that takes no more ends the recording, not the program."""
        if self.has_failed:
            return
        try:
            self._writing().take(data)
        except OSError as error:
            self._fail(error)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
        except OSError as failure:
            self._fail(failure)

    def _fail(self, error: OSError) -> None:
        if not self.has_failed:
            console.error(f"the recording ends here: cannot write {self.path}: {error.strerror}", "free some space")
        self.has_failed = True

    def _writing(self) -> RecordingWriter:
        from pie_engine.protocol.recording import RecordingWriter

        if self._writer is None:
            self._file = self.path.open("wb")
            self._writer = RecordingWriter(self._file)
        return self._writer
