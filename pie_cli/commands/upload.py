"""`pie upload`: a program that is launched by its name."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async


def register(app: typer.Typer) -> None:
    app.command("upload")(upload)


def upload(
    target: Annotated[
        str, typer.Argument(metavar="[TARGET]", help="A program's folder, a .py file, or what `pie build` made.")
    ] = ".",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, as HTTP gives it.")] = False,
) -> None:
    """Keep a program on the daemon, to be launched by its name.

    `pie run NAME`, clients and other programs launch it then, wherever they
    are. What was uploaded under the same name and version before is replaced;
    what runs goes on as it is. Its name and version go to stdout.
    """
    run_async(_upload(target, as_json))


async def _upload(target: str, as_json: bool) -> None:
    import msgspec

    from pie_cli.daemon import ensure_daemon
    from pie_cli.project import resolve_target
    from pie_engine.config import load_config
    from pie_engine.errors import NotFound

    program = resolve_target(target)
    if isinstance(program, str):
        raise NotFound(f"`{target}` is neither a file nor a folder", hint="give the folder of a program")
    config = load_config()
    async with new_client() as client:
        await ensure_daemon(client, config)
        view = await client.upload(program)
    console.data_line(msgspec.json.encode(view).decode() if as_json else f"{view.name}@{view.version}")
