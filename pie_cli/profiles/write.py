"""What `pie run --profile` and `--trace FILE` do with the profile of a process when it has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pie_cli import console
from pie_cli.files import check_writable, write_text
from pie_cli.profiles.read import TRACE, Collected
from pie_engine.errors import InvalidInput


class Profiler:
    """Takes the `trace` events of a process as they come."""

    def __init__(self, *, reports: bool, trace_path: str | None) -> None:
        """Raises `InvalidInput` when the file cannot be written."""
        self.has_failed = False
        self._reports = reports
        self._trace_path = None if trace_path is None else Path(trace_path).expanduser()
        self._collected = Collected()
        if self._trace_path is not None:
            if self._trace_path.suffix != TRACE:
                hint = f"name a file that ends in `{TRACE}`; `pie profile` makes pages of traces"
                raise InvalidInput(f"`{trace_path}` is no name of a trace", hint=hint)
            check_writable(self._trace_path, "the trace")

    def later(self, pid: str) -> list[str]:
        """What gets the same of a process that goes on without us."""
        said = [f"`pie profile {pid}` shows where its time goes, now or later"] if self._reports else []
        if self._trace_path is not None:
            said.append(f"`pie profile {pid} {self._trace_path}` writes the trace, now or later")
        return said

    def take(self, data: dict[str, Any]) -> None:
        self._collected.take(data)

    def finish(self) -> None:
        """Write the file and the report. What cannot be made of it is said; the program has run all the same."""
        from pie_cli.profiles.chrome import trace_text
        from pie_cli.profiles.model import build
        from pie_cli.profiles.text import report

        try:
            profile = build(self._collected.entries(), self._collected.full_mb)
            if self._trace_path is not None:
                write_text(self._trace_path, trace_text(profile, self._collected))
                console.note(f"trace in {self._trace_path}: open it in ui.perfetto.dev, or `pie profile` it")
            if self._reports:
                for line in report(profile):
                    console.note(line)
        except InvalidInput as error:
            self.has_failed = True
            console.error(error.message, error.hint)
