"""`pie secret`: what programs must know and nobody may see. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.secret import listing, remove, set_value


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="secret", rich_markup_mode=None, add_completion=False)
    group.callback(no_args_is_help=True)(secret)
    for command in (listing, set_value, remove):
        command.register(group)
    app.add_typer(group)


def secret() -> None:
    """Keep keys and passwords for the programs whose pie.toml names them."""
