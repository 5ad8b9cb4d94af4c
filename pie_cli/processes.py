"""Processes as one types them: a process id may be cut short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pie_engine.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pie_client import PieClient

LENGTH = 16
"""Of a whole process id; nothing needs to be looked up for one."""


async def full_pid(client: PieClient, start: str) -> str:
    """The process id that begins like this. Raises `NotFound`, and `InvalidInput` when there are several."""
    if len(start) >= LENGTH:
        return start
    known = [str(process["pid"]) for process in await client.list_processes(with_ended=True)]
    found = [pid for pid in known if pid.startswith(start)] if start else []
    if start in found:
        return start
    if not found:
        raise NotFound(f"there is no process `{start}`", hint="`pie ps --all` shows which there are")
    if len(found) > 1:
        raise InvalidInput(
            f"{len(found)} processes begin with `{start}`", hint=f"which one: {', '.join(sorted(found)[:5])}?"
        )
    return found[0]
