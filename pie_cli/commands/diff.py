"""`pie diff`: two recordings side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("diff")(diff)


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A recording, as `pie run --record` writes it.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    everything: Annotated[bool, typer.Option("--all", help="Show every call, not only those that differ.")] = False,
) -> int:
    """Compare two recordings: where they first depart, which calls differ, what was written, what it took.

    The exit code is 1 when the programs did not do the same.
    """
    from pie_cli.recordings.diff import diff as compare

    return compare(first, second, everything=everything)
