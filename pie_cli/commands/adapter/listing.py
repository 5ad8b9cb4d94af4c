"""`pie adapter list`: the adapters that are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_engine.protocol.http import AdapterView

HEADER = ("ADAPTER", "MODEL", "RANK", "MEMORY", "FOLDER", "STATE")


def register(app: typer.Typer) -> None:
    app.command("list")(list_adapters)


def list_adapters(
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Show the LoRA adapters of the models that are loaded."""
    run_async(_list(as_json))


async def _list(as_json: bool) -> None:
    import msgspec

    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        adapters = await client.adapters()
    if as_json:
        console.data_line(msgspec.json.encode({"adapters": adapters}).decode())
        return
    console.table(HEADER, [_row(adapter) for adapter in adapters], right=frozenset({2, 3}))


def _row(adapter: AdapterView) -> tuple[str, ...]:
    from pie_cli.sizes import bytes_text

    if adapter.failed is not None:
        return (adapter.name, adapter.model, "-", "-", adapter.folder, f"broken: {adapter.failed.message}")
    state = "configured" if adapter.configured else ""
    size = bytes_text(adapter.num_bytes)
    return (adapter.name, adapter.model, str(adapter.rank), size, adapter.folder, state)
