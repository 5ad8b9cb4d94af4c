"""`pie context`: what programs have saved, and how it travels. One file a verb."""

from __future__ import annotations

import typer

from pie_cli.commands.context import export, import_file, info, listing, remove


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="context", rich_markup_mode=None, add_completion=False)
    group.callback(no_args_is_help=True)(context)
    for command in (listing, info, export, import_file, remove):
        command.register(group)
    app.add_typer(group)


def context() -> None:
    """Look at saved contexts, move them between machines, and take them away.

    A program saves one with `ctx.save(NAME)` and goes on from it with `Context.open(NAME)`.
    """
