"""`pie secret list`: which there are."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async


def register(app: typer.Typer) -> None:
    app.command("list")(listing)


def listing(
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON list.")] = False,
) -> None:
    """Show the names of secrets and when each was set. Values are not shown."""
    run_async(_list(as_json))


async def _list(as_json: bool) -> None:
    import msgspec

    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        secrets = await client.secrets()
    if as_json:
        console.data_line(msgspec.json.encode(secrets).decode())
    elif secrets:
        rows = [(each.name, time.strftime("%Y-%m-%d %H:%M", time.localtime(each.set_at))) for each in secrets]
        console.table(("NAME", "SET"), rows)
    else:
        console.note("no secrets yet: `pie secret set NAME`")
