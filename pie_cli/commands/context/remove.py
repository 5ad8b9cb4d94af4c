"""`pie context remove`: delete a saved context."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async


def register(app: typer.Typer) -> None:
    app.command("remove")(remove)


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it was saved as.")],
    model: Annotated[str, typer.Option(help="The model that it was saved with, instead of the default one.")] = "",
) -> None:
    """Delete a saved context. Programs that have opened it go on."""
    run_async(_remove(name, model))
    console.note(f"removed {name}")


async def _remove(name: str, model: str) -> None:
    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        await client.remove_context(name, model=model)
