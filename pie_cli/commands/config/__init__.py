"""`pie config`: the settings of the daemon. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.config import check, init, set_value, show


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="config", rich_markup_mode=None, add_completion=False)
    group.callback(no_args_is_help=True)(config)
    for command in (init, show, set_value, check):
        command.register(group)
    app.add_typer(group)


def config() -> None:
    """Look at the settings of the daemon, change them, and check them."""
