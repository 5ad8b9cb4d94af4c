"""`pie logs`: what a process said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import exits
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_cli.render import Printer


def register(app: typer.Typer) -> None:
    app.command("logs")(logs)


def logs(
    pid: Annotated[
        str,
        typer.Argument(metavar="PID", help="Process id, or how it begins, from `pie ps --all` or `pie run --detach`."),
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the process has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write every event as one JSON object a line.")] = False,
    record: Annotated[
        str | None,
        typer.Option("--record", metavar="FILE", help="Write its recording, if it was launched with --record."),
    ] = None,
) -> int:
    """Show everything that a process has sent, printed and logged."""
    if record is not None:
        from pie_cli.recordings.fetch import fetch

        run_async(fetch(pid, record, follow=follow))
        return exits.OK
    from pie_cli.render import JsonPrinter, TextPrinter

    printer = JsonPrinter() if as_json else TextPrinter()
    run_async(_follow(pid, printer) if follow else _show(pid, printer))
    return exits.OK


async def _show(pid: str, printer: Printer) -> None:
    from pie_cli.daemon import require_daemon
    from pie_cli.processes import full_pid

    async with new_client() as client:
        await require_daemon(client)
        for event in await client.events(await full_pid(client, pid)):
            printer.show(event["kind"], event["data"])
    printer.finish()


async def _follow(pid: str, printer: Printer) -> None:
    """Leaving with Ctrl-C leaves the process alone."""
    from pie_cli.daemon import require_daemon
    from pie_cli.processes import full_pid

    async with new_client() as client:
        await require_daemon(client)
        process = await client.attach(await full_pid(client, pid))
        async for event, value in process:
            printer.show(event.value, value)
    printer.finish()
