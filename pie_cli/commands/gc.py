"""`pie gc`: take away what is not needed any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_cli.leftovers import Leftovers
    from pie_engine.config import EngineConfig
    from pie_engine.protocol.http import Collected

HEADER = ("WHAT", "NUMBER", "SIZE")


def register(app: typer.Typer) -> None:
    app.command("gc")(gc)


def gc(
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", min=0, metavar="DAYS", help="Default: `gateway.retention_days`. 0: everything."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Remove old ended processes with their logs, and caches that were not used for a while.

    Saved contexts, models, adapters, secrets and uploaded programs stay. What was cached is made again when it is
    needed.
    """
    run_async(_gc(older_than, dry_run, as_json))


async def _gc(older_than: float | None, is_dry: bool, as_json: bool) -> None:
    from pie_cli.daemon import find_daemon, running_daemon
    from pie_cli.leftovers import RUNNING_DAYS, find_leftovers
    from pie_engine.config import load_config

    config = load_config()
    days = config.gateway.retention_days if older_than is None else older_than
    async with new_client() as client:
        answers = await find_daemon(client) is not None
        collected = await client.collect(days * 86400, dry_run=is_dry) if answers else None
    # One that starts does not answer yet, and may be building something.
    is_running = answers or running_daemon(config.paths) is not None
    found = [each for each in find_leftovers(config.paths, days, is_running=is_running) if each.paths]
    if not is_dry:
        for each in found:
            each.remove()
    if as_json:
        _show_json(found, collected, is_dry)
    else:
        _show(found, collected, is_dry, days, config)
        if is_running and days < RUNNING_DAYS:
            console.note("the daemon may be using what was used within the last day: `pie stop` first takes that, too")


def _show(found: list[Leftovers], collected: Collected | None, is_dry: bool, days: float, config: EngineConfig) -> None:
    from pie_cli.sizes import bytes_text

    rows = [(each.what, str(len(each.paths)), bytes_text(each.num_bytes)) for each in found]
    if collected is not None and collected.processes:
        size = bytes_text(max(collected.bytes_before - collected.bytes_after, 0)) if not is_dry else "-"
        rows.append(("ended processes and their events", str(collected.processes), size))
    if rows:
        console.table(HEADER, rows, right=frozenset({1, 2}))
    verb = "would go" if is_dry else "removed"
    total = sum(each.num_bytes for each in found)
    console.note(f"{verb}: {bytes_text(total)} of files" if rows else f"nothing is older than {days:g} days")
    if collected is None:
        console.note(
            f"no daemon answers: ended processes in {config.paths.database} stay until one is, which deletes them "
            "after `gateway.retention_days`"
        )


def _show_json(found: list[Leftovers], collected: Collected | None, is_dry: bool) -> None:
    import msgspec

    files = [{"what": each.what, "number": len(each.paths), "bytes": each.num_bytes} for each in found]
    body = {"dry_run": is_dry, "files": files, "processes": collected}
    console.data_line(msgspec.json.encode(body).decode())
