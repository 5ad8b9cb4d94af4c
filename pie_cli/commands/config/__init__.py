"""`pie config`: the settings of the daemon. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.config import check, init, set_value, show
from pie_cli.groups import add_group


def register(app: typer.Typer) -> None:
    add_group(app, config, (init, show, set_value, check))


def config() -> None:
    """Look at the settings of the daemon, change them, and check them."""
