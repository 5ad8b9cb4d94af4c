"""The recording of a process that runs, or has run, without us."""

from __future__ import annotations

from pie_cli import console
from pie_cli.client import new_client
from pie_cli.recordings.write import Recorder
from pie_engine.errors import NotFound


async def fetch(pid: str, path: str, *, follow: bool) -> None:
    """Write what there is of it, or with `follow` all of it, to its end. Raises `NotFound` when it was not recorded."""
    from pie_cli.daemon import require_daemon
    from pie_cli.processes import full_pid

    async with new_client() as client:
        await require_daemon(client)
        full = await full_pid(client, pid)
        with Recorder(path) as recorder:
            if follow:
                process = await client.attach(full, with_trace=True)
                async for event, value in process:
                    if event.value == "trace":
                        recorder.take(value)
            else:
                for stored in await client.events(full, with_trace=True):
                    if stored["kind"] == "trace":
                        recorder.take(stored["data"])
            if not recorder.has_begun:
                raise NotFound(f"process {full} was not recorded", hint="launch it with `pie run --record FILE`")
            console.note(f"recorded in {recorder.path}")
