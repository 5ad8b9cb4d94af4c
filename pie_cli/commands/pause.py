"""`pie pause`: processes stand still until `pie resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli.client import run_async


def register(app: typer.Typer) -> None:
    app.command("pause")(pause)


def pause(
    pids: Annotated[list[str], typer.Argument(metavar="PID", help="Process ids, or how they begin.")],
) -> None:
    """Let processes stand still until `pie resume`.

    Nothing of them runs, and their time limits do not pass. When KV pages are
    short, theirs are the first to go; they come back by themselves.
    """
    from pie_cli.acting import act_on

    run_async(act_on(pids, lambda client, pid: client.pause(pid), "is paused"))
