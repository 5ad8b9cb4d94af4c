"""`pie bid`: what a process bids for its KV pages and its place in the batch."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli.client import run_async
from pie_cli.words import NEGATIVE_NUMBERS, number_of

DEFAULT = "default"


def register(app: typer.Typer) -> None:
    app.command("bid", context_settings=NEGATIVE_NUMBERS)(bid)


def bid(
    pid: Annotated[str, typer.Argument(metavar="PID", help="Process id, or how it begins.")],
    credits: Annotated[
        str, typer.Argument(metavar="CREDITS", help="Credits for a page and a step; `default`: what the program bids.")
    ],
) -> None:
    """Set what a process bids where not all fits.

    Whatever its program bids itself does not count, until `default`.
    """
    from pie_cli.acting import act_on

    amount = None if credits == DEFAULT else number_of(credits, f"a bid is a number of credits or `{DEFAULT}`")
    outcome = "bids for itself" if amount is None else f"bids {amount:.10g}"
    run_async(act_on([pid], lambda client, pid: client.bid(pid, amount), outcome))
