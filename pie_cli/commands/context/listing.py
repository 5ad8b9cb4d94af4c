"""`pie context list`: the contexts that are saved."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_engine.protocol.http import ContextView

HEADER = ("NAME", "MODEL", "TOKENS", "SIZE", "AGE", "STATE")


def register(app: typer.Typer) -> None:
    app.command("list")(list_contexts)


def list_contexts(
    model: Annotated[str, typer.Option(help="Only those saved with this model.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Show saved contexts: their tokens, the size of their KV, and whether the model can use it as it is loaded now."""
    import msgspec

    contexts = run_async(_list(model))
    if as_json:
        console.data_line(msgspec.json.encode({"contexts": contexts}).decode())
        return
    console.table(HEADER, [_row(context, time.time()) for context in contexts], right=frozenset({2, 3, 4}))


async def _list(model: str) -> list[ContextView]:
    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        return await client.contexts(model)


def _row(context: ContextView, now: float) -> tuple[str, ...]:
    from pie_cli.commands.ps import age
    from pie_cli.sizes import bytes_text

    if context.failed is not None:
        return context.name, context.model, "-", "-", "-", state_of(context)
    size, since = bytes_text(context.bytes), age(now - context.saved)
    return context.name, context.model, f"{context.tokens:,}", size, since, state_of(context)


def state_of(context: ContextView) -> str:
    """Whether `Context.open` takes it."""
    if context.failed is not None:
        return "cannot be read"
    if context.fits is None:
        return "model not loaded"
    other = "of other weights or adapter" if context.adapter else "of other weights"
    return "" if context.fits else other
