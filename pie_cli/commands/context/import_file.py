"""`pie context import`: a saved context from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_engine.protocol.http import ContextView


def register(app: typer.Typer) -> None:
    app.command("import")(import_file)


def import_file(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `pie context export` has written.")],
    name: Annotated[str, typer.Option(help="What to save it as, instead of its own name.")] = "",
    model: Annotated[str, typer.Option(help="The model that it is for, instead of the default one.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a context with the name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Save what `pie context export` has written.

    It is refused when it is damaged, or when the model is not loaded with the same weights, dtype and page size.
    """
    import msgspec

    context = run_async(_import(file, name, model, replace))
    if as_json:
        console.data_line(msgspec.json.encode(context).decode())
    else:
        console.note(f"saved {context.name}: {context.tokens:,} tokens of {context.model}")


async def _import(file: str, name: str, model: str, replace: bool) -> ContextView:
    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        return await client.import_context(file, name, model=model, replace=replace)
