"""The work of `pie profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pie_cli import console
from pie_cli.client import new_client, run_async
from pie_cli.files import check_writable, write_text
from pie_cli.profiles.model import build
from pie_cli.profiles.read import PAGE, TRACE, Collected, read_trace
from pie_engine.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pie_client import PieClient

LAST = "last"
MAX_LOOKED_AT = 20
"""Processes among which `last` looks for a profiled one."""


def show(source: str, file: Path | None) -> None:
    """A report on stdout, or a file. Raises `NotFound` and `InvalidInput`."""
    if file is None and source.endswith(PAGE):
        source, file = LAST, Path(source)
    target = None if file is None else file.expanduser()
    if target is not None:
        if target.suffix not in (PAGE, TRACE):
            raise InvalidInput(
                f"`{target}` is neither a page nor a trace", hint="name a file that ends in `.html` or `.json`"
            )
        check_writable(target, "the profile")
    path = Path(source).expanduser()
    collected = read_trace(path) if path.suffix or path.exists() else run_async(_fetch(source))
    profile = build(collected.entries(), collected.full_mb)
    if target is None:
        from pie_cli.profiles.text import report

        for line in report(profile):
            console.data_line(line)
        return
    if target.suffix == TRACE:
        from pie_cli.profiles.chrome import trace_text

        write_text(target, trace_text(profile, collected))
    else:
        from pie_cli.profiles.page import page

        write_text(target, page(profile))
    console.note(f"profile of {profile.program}@{profile.version} in {target}")


async def _fetch(source: str) -> Collected:
    """What the daemon has of a process."""
    from pie_cli.daemon import require_daemon
    from pie_cli.processes import full_pid

    async with new_client() as client:
        await require_daemon(client)
        if source == LAST:
            return await _last(client)
        pid = await full_pid(client, source)
        collected = await _stored(client, pid)
        if not collected.payloads:
            raise NotFound(f"process {pid} was not profiled", hint="launch it with `pie run --profile`")
        return collected


async def _last(client: PieClient) -> Collected:
    for view in (await client.list_processes(with_ended=True))[:MAX_LOOKED_AT]:
        collected = await _stored(client, str(view["pid"]))
        if collected.payloads:
            return collected
    raise NotFound("no process of late was profiled", hint="launch one with `pie run --profile`")


async def _stored(client: PieClient, pid: str) -> Collected:
    collected = Collected()
    for event in await client.events(pid, with_trace=True):
        if event["kind"] == "trace":
            collected.take(event["data"])
    return collected
