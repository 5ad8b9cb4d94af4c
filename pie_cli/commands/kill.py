"""`pie kill`: end processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_client import PieClient


def register(app: typer.Typer) -> None:
    app.command("kill")(kill)


def kill(
    pids: Annotated[list[str], typer.Argument(metavar="PID", help="Process ids, or how they begin.")],
) -> None:
    """End processes and wait until they have ended.

    Each gets `host.cancel_grace_s` to clean up.
    """
    run_async(_kill(pids))


async def _kill(starts: list[str]) -> None:
    import asyncio

    from pie_cli.daemon import require_daemon
    from pie_cli.processes import full_pid

    async with new_client() as client:
        await require_daemon(client)
        pids = [await full_pid(client, start) for start in starts]
        await asyncio.gather(*(_end(client, pid) for pid in dict.fromkeys(pids)))


async def _end(client: PieClient, pid: str) -> None:
    view = await client.inspect(pid)
    if view["state"] == "ended":
        console.note(f"{pid} had ended already: {view['outcome']}")
        return
    process = await client.attach(pid, view["last_event"])
    await process.terminate()
    async for _ in process:
        pass
    console.note(f"{pid} has ended: {(await client.inspect(pid))['outcome']}")
