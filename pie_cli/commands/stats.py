"""`pie stats`: what the engine does, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_client import Snapshot


def register(app: typer.Typer) -> None:
    app.command("stats")(stats)


def stats(
    as_json: Annotated[bool, typer.Option("--json", help="Write a JSON object, with --watch one a line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show rates, again and again, until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=30, metavar="SECONDS", help="For --watch.")
    ] = 1.0,
) -> None:
    """Show how busy the engine is: batches, KV pages, latencies, processor time and memory.

    Sums are since the start, with --watch they are rates.
    """
    run_async(_watch(as_json, interval) if watch else _stats(as_json))


async def _stats(as_json: bool) -> None:
    from pie_cli.daemon import require_daemon
    from pie_cli.statistics import statistics_lines

    async with new_client() as client:
        await require_daemon(client)
        snapshot = await client.stats()
        console.data("\n".join([*([_json(snapshot)] if as_json else statistics_lines(snapshot)), ""]))


async def _watch(as_json: bool, interval_s: float) -> None:
    from contextlib import aclosing

    from pie_cli.daemon import require_daemon
    from pie_cli.statistics import statistics_lines

    async with new_client() as client:
        await require_daemon(client)
        before: Snapshot | None = None
        async with aclosing(client.stats_stream(interval_ms=round(interval_s * 1000))) as stream:
            if as_json:
                async for snapshot in stream:
                    console.data_line(_json(snapshot))
                return
            with console.screen() as show:
                async for snapshot in stream:
                    show(statistics_lines(snapshot, before))
                    before = snapshot


def _json(snapshot: Snapshot) -> str:
    import msgspec

    return msgspec.json.encode(snapshot).decode()
