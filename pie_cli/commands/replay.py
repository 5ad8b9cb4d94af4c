"""`pie replay`: run a recorded program again, without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("replay")(replay)


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording, as `pie run --record` writes it.")],
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="An edited program, a folder or a .py file, to run in its place."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write every event as one JSON object a line.")] = False,
) -> int:
    """Run a recorded program again, with no model and no daemon.

    It gets what it got then: replies, messages, the time, random numbers, and everything in the same order. Where the
    program does something else than in the recording, both calls are shown, and the exit code is 1.
    """
    from pie_cli.recordings.replay import replay as run_again

    return run_again(file, target, as_json=as_json)
