"""`pie adapter add`: load an adapter into a running model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async


def register(app: typer.Typer) -> None:
    app.command("add")(add)


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What programs call it.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="As PEFT has written it.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model that it is for.")] = "",
) -> None:
    """Load a LoRA adapter; the daemon keeps it, also over restarts, until it is removed.

    A name that is taken gets the new adapter, unless a program uses the old one.
    """
    run_async(_add(name, folder, model))


async def _add(name: str, folder: Path, model: str) -> None:
    from pie_cli.daemon import require_daemon
    from pie_cli.sizes import bytes_text

    async with new_client() as client:
        await require_daemon(client)
        adapter = await client.add_adapter(name, folder, model)
        used = sum(each.num_bytes for each in await client.adapters() if each.model == adapter.model)
    console.note(
        f"added {adapter.name} to {adapter.model}: rank {adapter.rank}, {bytes_text(adapter.num_bytes)} "
        f"({bytes_text(used)} for all its adapters)"
    )
