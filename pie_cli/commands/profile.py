"""`pie profile`: where the time of a program went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pie_cli import exits


def register(app: typer.Typer) -> None:
    app.command("profile")(profile)


def profile(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A file of `pie run --trace`, or the id of a process that was launched with --profile or --trace, or "
            "how it begins. `last`: the newest of these, as is meant by a FILE.html alone.",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="Write a page (.html) or a trace (.json) there, instead of a report here."
        ),
    ] = None,
) -> int:
    """Show where the time of a profiled program went, what was slow, and what would help.

    With a FILE.html it writes a page with the timeline: one file that needs no network, to look at and to send.
    """
    from pie_cli.profiles.show import show

    show(source, file)
    return exits.OK
