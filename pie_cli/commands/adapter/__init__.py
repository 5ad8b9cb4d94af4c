"""`pie adapter`: the LoRA adapters of the models that the daemon has loaded. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.adapter import add, listing, remove


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="adapter", rich_markup_mode=None, add_completion=False)
    group.callback(no_args_is_help=True)(adapter)
    for command in (listing, add, remove):
        command.register(group)
    app.add_typer(group)


def adapter() -> None:
    """Load LoRA adapters into a running model, look at them, and take them away."""
