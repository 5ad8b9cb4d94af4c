"""`pie secret set`: keep a value, without its passing over the command line, where other users could read it."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async


def register(app: typer.Typer) -> None:
    app.command("set")(set_value)


def set_value(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As pie.toml names it, `API_KEY` say.")],
) -> None:
    """Set a secret. Its value is asked for, or read from stdin where that is no terminal: `pie secret set NAME < FILE`.

    A line's end after it is left out. The daemon keeps it in its database, readable for this user alone.
    """
    from pie_engine.errors import InvalidInput
    from pie_engine.protocol.program import SECRET

    if not SECRET.fullmatch(name):
        # Before the value is asked for.
        raise InvalidInput(f"`{name}` cannot be the name of a secret", hint="like `API_KEY`: letters, digits, `_`")
    value = console.ask_secret(f"value of {name}: ")
    run_async(_set(name, value))


async def _set(name: str, value: str) -> None:
    from pie_cli.daemon import ensure_daemon
    from pie_engine.config import load_config

    async with new_client() as client:
        await ensure_daemon(client, load_config())
        await client.set_secret(name, value)
    console.note(f"set {name}")
