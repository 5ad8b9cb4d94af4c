"""`pie bid`: what a process bids for its KV pages and its place in the batch."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli.client import run_async

DEFAULT = "default"


def register(app: typer.Typer) -> None:
    app.command("bid")(bid)


def bid(
    pid: Annotated[str, typer.Argument(help="Process id, or how it begins.")],
    credits: Annotated[str, typer.Argument(help="Credits for a page and a step; `default`: what the program bids.")],
) -> None:
    """Set what a process bids where not all fits.

    Whatever its program bids itself does not count, until `default`.
    """
    from pie_cli.acting import act_on

    amount = None if credits == DEFAULT else _credits(credits)
    outcome = "bids for itself" if amount is None else f"bids {amount:.10g}"
    run_async(act_on([pid], lambda client, pid: client.bid(pid, amount), outcome))


def _credits(text: str) -> float:
    from pie_engine.errors import InvalidInput

    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"a bid is a number of credits or `{DEFAULT}`; got `{text}`") from None
