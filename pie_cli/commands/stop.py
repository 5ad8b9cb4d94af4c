"""`pie stop`: end the daemon."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_client import PieClient
    from pie_engine.config import Paths

POLL_S = 0.05
NOTE_EVERY_S = 10.0


def register(app: typer.Typer) -> None:
    app.command("stop")(stop)


def stop(
    drain: Annotated[bool, typer.Option("--drain", help="Let running programs end first; start no new ones.")] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait. After them --drain ends what still runs, and without it this fails.")
    ] = 60.0,
) -> None:
    """Stop the daemon and wait until it is gone."""
    run_async(_stop(drain, timeout))


async def _stop(drain: bool, timeout_s: float) -> None:
    from pie_cli.daemon import running_daemon
    from pie_engine.config import load_paths

    paths = load_paths()
    os_pid = running_daemon(paths)
    async with new_client() as client:
        os_pid = os_pid or await _pid_from_health(client)
        if os_pid is None:
            console.note("no daemon is running")
            return
        await _ask(client, os_pid, drain)
        if not await _is_gone(paths, os_pid, timeout_s, client if drain else None):
            await _insist(client, paths, os_pid, drain)
    console.note(f"the daemon (process {os_pid}) has stopped")


async def _pid_from_health(client: PieClient) -> int | None:
    from pie_cli.daemon import find_daemon

    health = await find_daemon(client)
    return health.daemon_os_pid if health else None


async def _ask(client: PieClient, os_pid: int, drain: bool) -> None:
    """Through the API, or by signal when its gateway does not answer."""
    from pie_client.errors import Interrupted, NoDaemon

    try:
        await client.stop_daemon(drain=drain)
    except (NoDaemon, Interrupted):
        with suppress(ProcessLookupError):
            os.kill(os_pid, signal.SIGTERM)


async def _insist(client: PieClient, paths: Paths, os_pid: int, drain: bool) -> None:
    from pie_cli.daemon import StartFailed

    if drain:
        console.warning("programs are still running; stopping all the same")
        await _ask(client, os_pid, drain=False)
        if await _is_gone(paths, os_pid, NOTE_EVERY_S):
            return
    raise StartFailed(
        f"the daemon (process {os_pid}) does not stop", hint=f"see {paths.logs}; `kill -9 {os_pid}` ends it at once"
    )


async def _is_gone(paths: Paths, os_pid: int, timeout_s: float, draining: PieClient | None = None) -> bool:
    """Waits for the end of the daemon; says every now and then what a drain waits for."""
    import asyncio

    start = last_note = time.monotonic()
    while _is_alive(paths, os_pid):
        now = time.monotonic()
        if now - start > timeout_s:
            return False
        if draining and now - last_note > NOTE_EVERY_S:
            last_note = now
            await _note_running(draining)
        await asyncio.sleep(POLL_S)
    return True


async def _note_running(client: PieClient) -> None:
    from pie_engine.errors import PieError

    try:
        running = await client.list_processes()
    except PieError:
        return
    console.note(f"waiting for {', '.join(process['pid'] for process in running) or 'the daemon to end'}")


def _is_alive(paths: Paths, os_pid: int) -> bool:
    """By its lock, since a dead process keeps its number where nobody reaps it."""
    from pie_cli.daemon import running_daemon

    if paths.daemon_lock.exists():
        return running_daemon(paths) == os_pid
    try:
        os.kill(os_pid, 0)
    except ProcessLookupError:
        return False
    return True
