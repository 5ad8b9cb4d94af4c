"""`pie dev`: hold a program available to clients while it is written."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("dev")(dev)


def dev(
    target: Annotated[str, typer.Argument(metavar="[FOLDER]", help="A program's folder, or a .py file.")] = ".",
    name: Annotated[str | None, typer.Option("--name", help="Serve it under this name, not its own.")] = None,
    endowment: Annotated[
        float | None, typer.Option("--endowment", metavar="NUMBER", help="Credits of each launch that names none.")
    ] = None,
) -> int:
    """Hold a program available to clients, and upload it on each save.

    A version that is broken is shown and not served; the last good one goes on.
    Processes that run finish on their version. Each that a client launches is a
    line, and another when it has ended. `q` or Ctrl-C ends this; the program
    stays uploaded.
    """
    from pie_cli.dev import hold

    return hold(target, name, endowment)
