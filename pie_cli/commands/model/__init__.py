"""`pie model`: the models that are here, and how they come and go. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.model import check, info, listing, pull, remove
from pie_cli.groups import add_group


def register(app: typer.Typer) -> None:
    add_group(app, model, (listing, pull, info, check, remove))


def model() -> None:
    """Fetch models, look at them, and take them away."""
