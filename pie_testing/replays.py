"""Recordings as tests: `pie test --replay FILE` runs the program as it is now against what it did then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pie_cli.recordings.words import departure_lines
from pie_client import pack
from pie_engine.errors import NotFound, PieError
from pie_engine.protocol.recording import RecordingFile, Replayable
from pie_engine.replay.run import Replays
from pie_testing.programs import program_folder

if TYPE_CHECKING:
    from pie_engine.protocol.program import Bundle

MAX_SHOWN = 5


class Departed(Exception):
    """The program does not do what the recording says."""


class ReplayItem(pytest.Item):
    """One recording."""

    def __init__(self, *, recording: Path, folders: list[Path], **kwargs: Any) -> None:
        """`folders`: of the programs that are tested."""
        super().__init__(**kwargs)
        self._file = recording
        self._folders = folders

    def runtest(self) -> None:
        recording = RecordingFile(self._file)
        bundle = self._program(recording)
        with Replays() as replays:
            replayed = replays.replay(recording, bundle)
        if not replayed.is_same:
            shown = ["\n".join(departure_lines(departure)) for departure in replayed.departures[:MAX_SHOWN]]
            raise Departed("\n".join(shown))

    def _program(self, recording: Replayable) -> Bundle:
        """The program that was recorded, as it is now."""
        recorded = recording.head.bundle
        name = recorded.manifest.name
        bundles = [pack(folder) for folder in self._folders]
        found = next((bundle for bundle in bundles if bundle.manifest.name == name), None)
        if found is None:
            found = next((bundle for bundle in bundles if _is_file_of(recorded, bundle)), None)
        if found is None:
            here = ", ".join(f"`{bundle.manifest.name}`" for bundle in bundles) or "none"
            raise NotFound(
                f"{self._file} is a recording of `{name}`; programs here: {here}",
                hint="give the folder of that program: `pie test FOLDER --replay FILE`",
            )
        return found

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        error = excinfo.value
        if isinstance(error, Departed):
            return f"{self._file}: the program departs from what was recorded\n{error}"
        if isinstance(error, PieError):
            return f"{error.message}\nhint: {error.hint}" if error.hint else error.message
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self._file, None, f"replay of {self._file.name}"


def _is_file_of(recorded: Bundle, bundle: Bundle) -> bool:
    """Whether it was recorded as `main.py`, without the folder that has another name."""
    entry = bundle.manifest.entry
    return recorded.manifest.name == entry and recorded.files.keys() == {f"{entry}.py"}


def replay_items(session: pytest.Session, recordings: list[str]) -> list[ReplayItem]:
    """One for each file."""
    targets = [Path(arg.partition("::")[0]).absolute() for arg in session.config.args]
    found = (program_folder(path if path.is_dir() else path.parent) for path in targets)
    folders = list(dict.fromkeys(folder for folder in found if folder is not None))
    return [
        ReplayItem.from_parent(session, name=f"replay[{path}]", recording=Path(path), folders=folders)
        for path in recordings
    ]
