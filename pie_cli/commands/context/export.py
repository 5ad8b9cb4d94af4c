"""`pie context export`: a saved context as one file."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it was saved as.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it.")],
    model: Annotated[str, typer.Option(help="The model that it was saved with, instead of the default one.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
) -> None:
    """Write a saved context to a file, for `pie context import` here or on another machine.

    The file is safetensors with the KV; tokens, chat, model and checksums are in its metadata.
    """
    num_bytes = run_async(_export(name, file, model, replace))
    from pie_cli.sizes import bytes_text

    console.note(f"wrote {file} ({bytes_text(num_bytes)})")


async def _export(name: str, file: str, model: str, replace: bool) -> int:
    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        return await client.export_context(name, file, model=model, replace=replace)
