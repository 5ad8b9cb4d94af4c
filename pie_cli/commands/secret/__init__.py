"""`pie secret`: what programs must know and nobody may see. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.secret import listing, remove, set_value
from pie_cli.groups import add_group


def register(app: typer.Typer) -> None:
    add_group(app, secret, (listing, set_value, remove))


def secret() -> None:
    """Keep keys and passwords for the programs whose pie.toml names them."""
