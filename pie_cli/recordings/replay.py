"""The work of `pie replay`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pie_cli import console, exits
from pie_cli.recordings.words import departure_lines
from pie_engine.errors import InvalidInput

if TYPE_CHECKING:
    from pie_engine.protocol.program import Bundle
    from pie_engine.protocol.recording import Replayable

MAX_SHOWN = 10
NOTES = {
    "rebuilt": "the Python runtime was built again since: ids of objects, and the order of sets of them, may differ",
    "other": "it was recorded with another version of the Python runtime, whose own calls may differ: record it again",
}


def replay(file: Path, target: str | None, *, as_json: bool) -> int:
    """Returns the exit code. Raises `NotFound`, `InvalidInput`, `InvalidProgram`."""
    from pie_cli.render import JsonPrinter, TextPrinter
    from pie_engine.protocol.recording import RecordingFile

    recording = RecordingFile(file.expanduser())
    bundle = _bundle(target)
    # The sandbox, which the command line does not know otherwise.
    replays = importlib.import_module("pie_engine.replay.run")
    printer = JsonPrinter() if as_json else TextPrinter()
    with replays.Replays(_progress()) as running:
        replayed = running.replay(recording, bundle, printer.show)
    if replayed.kind in ("return", "error"):
        printer.show(replayed.kind, replayed.value)
    printer.finish()
    return _report(recording, replayed)


def _bundle(target: str | None) -> Bundle | None:
    from pie_cli.project import resolve_target

    bundle = None if target is None else resolve_target(target)
    if isinstance(bundle, str):
        raise InvalidInput(f"`{target}` is no file or folder", hint="give the edited program, or leave it out")
    return bundle


def _progress() -> Any:
    """Says once what takes long."""
    said: set[str] = set()

    def progress(text: str, _fraction: float) -> None:
        if text not in said:
            said.add(text)
            console.note(f"{text} …")

    return progress


def _report(recording: Replayable, replayed: Any) -> int:
    """What is to be said beside what the program says."""
    for departure in replayed.departures[:MAX_SHOWN]:
        first, *lines = departure_lines(departure)
        console.end_line()
        console.error(first)
        for line in lines:
            console.note(line)
    more = len(replayed.departures) - MAX_SHOWN
    if more > 0:
        console.note(f"and {more} more differences in what the program says")
    if replayed.departures:
        if replayed.runtime in NOTES:
            console.note(f"note: {NOTES[replayed.runtime]}")
        return exits.PROGRAM_FAILED
    if replayed.kind == "cut":
        why = f"it has reached its limit of {recording.limit_mb:g} MiB" if recording.limit_mb else "it was cut off"
        console.note(f"the recording ends here: {why}")
    elif replayed.num_extra_reads:
        console.note(
            f"note: the program looked at the clock or drew random numbers {replayed.num_extra_reads} times more than "
            "in the recording, and got made-up ones"
        )
    console.note(console.paint(f"{_counted(replayed.num_calls)} as recorded", console.DIM))
    return exits.OK


def _counted(num_calls: int) -> str:
    return "1 call" if num_calls == 1 else f"{num_calls} calls"
