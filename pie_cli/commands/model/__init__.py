"""`pie model`: the models that are here, and how they come and go. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.model import check, info, listing, pull, remove


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="model", rich_markup_mode=None, add_completion=False)
    group.callback(no_args_is_help=True)(model)
    for command in (listing, pull, info, check, remove):
        command.register(group)
    app.add_typer(group)


def model() -> None:
    """Fetch models, look at them, and take them away."""
