"""`pie secret remove`: forget a secret."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async


def register(app: typer.Typer) -> None:
    app.command("remove")(remove)


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `pie secret list` shows it.")],
) -> None:
    """Forget a secret. Programs that run keep what they were given."""
    run_async(_remove(name))


async def _remove(name: str) -> None:
    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        await client.remove_secret(name)
    console.note(f"removed {name}")
