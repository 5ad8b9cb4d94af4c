"""`pie endow`: more credits for a process."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli.client import run_async
from pie_cli.words import NEGATIVE_NUMBERS, number_of


def register(app: typer.Typer) -> None:
    app.command("endow", context_settings=NEGATIVE_NUMBERS)(endow)


def endow(
    pid: Annotated[str, typer.Argument(metavar="PID", help="Process id, or how it begins.")],
    credits: Annotated[str, typer.Argument(metavar="CREDITS", help="That it gets beside what it has, in each model.")],
) -> None:
    """Give a process more credits."""
    from pie_cli.acting import act_on
    from pie_engine.protocol.credits import counted

    amount = number_of(credits, "an endowment is a number of credits")
    run_async(act_on([pid], lambda client, pid: client.endow(pid, amount), f"got {counted(f'{amount:.10g}')}"))
