"""`pie endow`: more credits for a process."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli.client import run_async


def register(app: typer.Typer) -> None:
    app.command("endow")(endow)


def endow(
    pid: Annotated[str, typer.Argument(help="Process id, or how it begins.")],
    credits: Annotated[float, typer.Argument(help="That it gets beside what it has, in each model.")],
) -> None:
    """Give a process more credits."""
    from pie_cli.acting import act_on
    from pie_engine.protocol.credits import counted

    run_async(act_on([pid], lambda client, pid: client.endow(pid, credits), f"got {counted(f'{credits:.10g}')}"))
