"""What is done to processes that run, and said about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from pie_cli import console
from pie_cli.client import new_client

if TYPE_CHECKING:
    from pie_client import PieClient


async def act_on(starts: Sequence[str], act: Callable[[PieClient, str], Awaitable[None]], outcome: str) -> None:
    """`act` on each process that is meant; `outcome` is what it is or does then."""
    from pie_cli.daemon import require_daemon
    from pie_cli.processes import full_pid

    async with new_client() as client:
        await require_daemon(client)
        pids = [await full_pid(client, start) for start in starts]
        for pid in dict.fromkeys(pids):
            await act(client, pid)
            console.note(f"{pid} {outcome}")
