"""Runs the monitor on this terminal: over a daemon, or over a recording."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pie_engine.config import load_paths
from pie_engine.errors import InvalidInput, PieError

if TYPE_CHECKING:
    from pie_cli.monitor.app import MonitorApp
    from pie_client import PieClient


class NoTerminal(PieError):
    """The monitor draws on a terminal, and there is none."""

    code = "no_terminal"


def require_terminal() -> None:
    """Raises `NoTerminal`."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoTerminal(
            "the monitor needs a terminal, and here is none", hint="`pie stats` and `pie stats --json` print the same"
        )
    if os.environ.get("TERM") == "dumb":
        raise NoTerminal(
            "the monitor needs a terminal that moves its cursor, and `TERM` says `dumb`",
            hint="set `TERM` to what it is, as `xterm-256color`; `pie stats` prints the same",
        )


async def show_engine(url: str, interval_s: float, record: str) -> None:
    """Until the user leaves. Raises `NoDaemon` when there is nothing to show yet."""
    from pie_cli.daemon import require_daemon
    from pie_client import NoDaemon, PieClient

    async with PieClient(url=url or None) as client:
        try:
            await require_daemon(client)
        except NoDaemon:
            if not url:
                raise
            raise NoDaemon(
                f"no daemon answers at {url}",
                hint="`pie serve --listen HOST:PORT` is one that does; without `--url` it is your own",
            ) from None
        await show_client(client, interval_s, record)


async def show_client(
    client: PieClient, interval_s: float = 0.5, record: str = "", until: Awaitable[object] | None = None
) -> None:
    """The same, of a daemon that is there. `until`: ends the monitor by itself when this has ended."""
    from pie_cli.monitor.app import MonitorApp
    from pie_cli.monitor.engine import Live
    from pie_cli.monitor.recording import Recorder
    from pie_cli.monitor.source import live

    recorder = Recorder(Path(record)) if record else None
    try:
        app = MonitorApp(live(client, interval_s), Live(client), load_paths().home, recorder=recorder)
        await _run(app, until)
    finally:
        if recorder is not None:
            recorder.close()
    if recorder is not None:
        _say(recorder.problem or f"{recorder.num_written:,} snapshots in {recorder.path}")


async def show_recording(path: str, speed: float) -> None:
    """Raises `InvalidInput` for what is no recording."""
    from pie_cli.monitor.app import MonitorApp
    from pie_cli.monitor.engine import Recorded
    from pie_cli.monitor.recording import read
    from pie_cli.monitor.source import replayed

    snapshots = read(Path(path))
    first = next(snapshots, None)
    if first is None:
        raise InvalidInput(f"`{path}` holds no snapshots")

    updates = replayed(chain((first,), snapshots), speed)
    await _run(MonitorApp(updates, Recorded(), load_paths().home))


async def _run(app: MonitorApp, until: Awaitable[object] | None = None) -> None:
    waiting = asyncio.ensure_future(until) if until is not None else None
    if waiting is not None:
        waiting.add_done_callback(lambda _: app.exit())
    try:
        await app.run_async()
    finally:
        if waiting is not None:
            waiting.cancel()
    if app.problem is not None:
        raise app.problem


def _say(text: str) -> None:
    from pie_cli import console

    console.note(text)
