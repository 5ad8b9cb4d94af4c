"""`pie context info`: what a saved context is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_engine.protocol.http import ContextView, SightView


def register(app: typer.Typer) -> None:
    app.command("info")(info)


def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it was saved as.")],
    model: Annotated[str, typer.Option(help="The model that it was saved with, instead of the default one.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Show what a saved context is, and whether the model can use it as it is loaded now."""
    import msgspec

    context = run_async(_find(name, model))
    if as_json:
        console.data_line(msgspec.json.encode(context).decode())
    else:
        _show(context)


async def _find(name: str, model: str) -> ContextView:
    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        return await client.context(name, model=model)


def _show(context: ContextView) -> None:
    from pie_cli.commands.context.listing import state_of
    from pie_cli.commands.ps import age
    from pie_cli.sizes import bytes_text

    rows = [
        ("name", context.name),
        ("model", context.model),
        ("model id", context.model_id),
        ("adapter", context.adapter or "none"),
        ("tokens", f"{context.tokens:,}, in pages of {context.page_size}"),
        ("sees", sight_text(context.sight)),
        ("KV", bytes_text(context.bytes)),
        ("saved", f"{age(time.time() - context.saved)} ago"),
        ("usable", state_of(context) or "yes"),
    ]
    for label, text in rows:
        console.data_line(f"{label:<8}  {text}")


def sight_text(sight: SightView | None) -> str:
    """What its tokens see: `a window of 64 and 4 sinks; 120 tokens dropped`."""
    if sight is None:
        return "everything before each token"
    said = []
    if sight.window is not None:
        said.append(f"a window of {sight.window:,}" + (f" and {sight.sinks:,} sinks" if sight.sinks else ""))
    if sight.dropped:
        said.append(f"{sight.dropped:,} tokens dropped")
    if sight.masked:
        said.append(f"{sight.masked:,} with a mask")
    if sight.moved:
        said.append("positions of its own")
    if sight.pages_gone:
        said.append(f"{sight.pages_gone:,} KV pages out of sight")
    return "; ".join(said)
