"""`pie attach`: be at the other end of a process that runs already."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli.client import run_async


def register(app: typer.Typer) -> None:
    app.command("attach")(attach)


def attach(
    pid: Annotated[str, typer.Argument(metavar="PID", help="Process id, or how it begins.")],
    new: Annotated[bool, typer.Option("--new", help="Only what comes from now on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write every event as one JSON object a line.")] = False,
    interactive: Annotated[
        bool | None,
        typer.Option("--interactive/--no-interactive", "-i", help="Send each line of stdin (the default)."),
    ] = None,
) -> int:
    """Show what a process says, and send it the lines of stdin as messages.

    It begins with what the process has said so far. Ctrl-C detaches; the
    process goes on. At the end of stdin nothing more is sent, and what it says
    is shown until it ends: `pie send --end` tells it that no more messages
    come, and `pie kill` ends it.
    """
    from pie_cli.attach import attach_to

    return run_async(attach_to(pid, only_new=new, as_json=as_json, sends=interactive is not False))
