"""`pie resume`: paused processes go on."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli.client import run_async


def register(app: typer.Typer) -> None:
    app.command("resume")(resume)


def resume(
    pids: Annotated[list[str], typer.Argument(metavar="PID", help="Process ids, or how they begin.")],
) -> None:
    """Let processes that were paused go on."""
    from pie_cli.acting import act_on

    run_async(act_on(pids, lambda client, pid: client.resume(pid), "goes on"))
