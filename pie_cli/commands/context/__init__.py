"""`pie context`: what programs have saved, and how it travels. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.context import export, import_file, info, listing, remove
from pie_cli.groups import add_group


def register(app: typer.Typer) -> None:
    add_group(app, context, (listing, info, export, import_file, remove))


def context() -> None:
    """Look at saved contexts, move them between machines, and take them away.

    A program saves one with `ctx.save(NAME)` and goes on from it with `Context.open(NAME)`.
    """
