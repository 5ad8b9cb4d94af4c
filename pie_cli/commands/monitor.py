"""`pie monitor`: what the engine does, on a screen."""

from __future__ import annotations

from typing import Annotated

import typer

from pie_cli.client import run_async


def register(app: typer.Typer) -> None:
    app.command("monitor")(monitor)


def monitor(
    url: Annotated[str, typer.Option("--url", help="A daemon that listens on TCP, instead of the user's own.")] = "",
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=30.0, metavar="SECONDS", help="Between two snapshots.")
    ] = 0.5,
    record: Annotated[str, typer.Option("--record", metavar="FILE", help="Write every snapshot to this file.")] = "",
    replay: Annotated[str, typer.Option("--replay", metavar="FILE", help="Show what `--record` has written.")] = "",
    speed: Annotated[
        float, typer.Option("--speed", min=0.1, metavar="TIMES", help="For --replay: how much faster than it was.")
    ] = 1.0,
) -> None:
    """Show what the engine does: batches, programs, KV pages, the market, and what stands out.

    `?` in it shows its keys. Leaving it with `q` does not stop the engine.
    """
    from pie_cli.monitor import running
    from pie_engine.errors import InvalidInput

    if replay and (record or url):
        raise InvalidInput(f"`--replay` shows a file; `{'--record' if record else '--url'}` needs an engine")
    running.require_terminal()
    run_async(running.show_recording(replay, speed) if replay else running.show_engine(url, interval, record))
