"""`pie send`: one message to a process."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli.client import new_client, run_async


def register(app: typer.Typer) -> None:
    app.command("send")(send)


def send(
    pid: Annotated[str, typer.Argument(metavar="PID", help="Process id, or how it begins.")],
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="The message, as a text; `-` reads it from stdin.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The message is JSON, and arrives as its value.")] = False,
    end: Annotated[bool, typer.Option("--end", help="Say that no more messages come: `null`.")] = False,
) -> None:
    """Send a message to a process.

    It arrives when the program asks for it. When this command ends, the daemon
    has it safely.
    """
    from pie_engine.errors import InvalidInput

    if value is None and not end:
        raise InvalidInput("there is nothing to send", hint="give a VALUE, `-` for what comes from stdin, or `--end`")
    messages = [] if value is None else [_message(value, as_json)]
    run_async(_send(pid, [*messages, None] if end else messages))


def _message(value: str, is_json: bool) -> object:
    from pie_cli.arguments import STDIN
    from pie_cli.stdin import Stdin

    text = Stdin().text() if value == STDIN else value
    if not is_json:
        return text
    import json

    from pie_engine.errors import InvalidInput

    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"the message is not JSON: {error}", hint="without `--json` it is sent as a text") from error


async def _send(start: str, messages: list[object]) -> None:
    from pie_cli.daemon import require_daemon
    from pie_cli.processes import full_pid

    async with new_client() as client:
        await require_daemon(client)
        pid = await full_pid(client, start)
        for message in messages:
            await client.send(pid, message)
