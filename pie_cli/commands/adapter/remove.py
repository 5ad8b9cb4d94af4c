"""`pie adapter remove`: unload an adapter."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async


def register(app: typer.Typer) -> None:
    app.command("remove")(remove)


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `pie adapter list` shows it.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model that it is for.")] = "",
) -> None:
    """Unload a LoRA adapter. Its files stay. One that a program uses is refused, naming the process."""
    run_async(_remove(name, model))


async def _remove(name: str, model: str) -> None:
    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        await client.remove_adapter(name, model)
    console.note(f"removed {name}")
