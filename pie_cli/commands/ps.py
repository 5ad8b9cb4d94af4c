"""`pie ps`: what runs, what it holds and what it waits for."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pie_cli import console
from pie_cli.client import new_client, run_async

if TYPE_CHECKING:
    from pie_client import PieClient
    from pie_engine.protocol.http import ProcessUsage, ProcessView

HEADER = ("PID", "PARENT", "PROGRAM", "STATE", "PAGES", "TOKENS", "ACCEPTED", "BID", "BALANCE", "AGE")
NUMBERS = frozenset(range(4, len(HEADER)))
FIRST_LEFT_OUT = ("ACCEPTED", "BID", "TOKENS", "BALANCE", "PARENT")
"""Columns of which a narrow terminal has only as many as fit beside the others; `--json` has all."""


def register(app: typer.Typer) -> None:
    app.command("ps")(ps)


def ps(
    everything: Annotated[bool, typer.Option("--all", help="Show processes that have ended, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="For --watch.")] = 1.0,
) -> None:
    """Show processes: their state, KV pages (+ those in host memory), tokens, bids and credits; and the free pages."""
    run_async(_watch(everything, as_json, interval) if watch else _ps(everything, as_json))


async def _ps(everything: bool, as_json: bool) -> None:
    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        console.data("\n".join([*await _lines(client, everything, as_json), ""]))


async def _watch(everything: bool, as_json: bool, interval: float) -> None:
    """On a terminal in place; elsewhere one picture after the other."""
    import asyncio

    from pie_cli.daemon import require_daemon

    async with new_client() as client:
        await require_daemon(client)
        with console.screen() as show:
            while True:
                show(await _lines(client, everything, as_json))
                await asyncio.sleep(interval)


async def _lines(client: PieClient, everything: bool, as_json: bool) -> list[str]:
    import msgspec

    from pie_engine.protocol.http import ProcessView

    processes = msgspec.convert(await client.list_processes(with_ended=everything), list[ProcessView])
    models = await client.models()
    if as_json:
        return [msgspec.json.encode({"processes": processes, "models": models}).decode()]
    now = time.time()
    queue = sorted(process.created for process in processes if process.state == "queued")
    rows = [_row(process, now, queue) for process in processes]
    return [*_table(rows, console.data_width()), *map(_pages_line, models)]


def _table(rows: list[tuple[str, ...]], width: int | None) -> list[str]:
    """With the columns that fit into `width`; None: all of them. Parents are shown where a program has one."""
    kept = list(range(len(HEADER)))
    if all(row[1] == "-" for row in rows):
        kept.remove(1)
    for name in FIRST_LEFT_OUT:
        if width is None or _width(rows, kept) <= width:
            break
        if HEADER.index(name) in kept:
            kept.remove(HEADER.index(name))
    right = frozenset(place for place, column in enumerate(kept) if column in NUMBERS)
    header, *cells = ([line[column] for column in kept] for line in (HEADER, *rows))
    return console.table_lines(header, cells, right=right)


def _width(rows: list[tuple[str, ...]], columns: list[int]) -> int:
    return sum(2 + max(len(line[column]) for line in (HEADER, *rows)) for column in columns) - 2


def _row(process: ProcessView, now: float, queue: Sequence[float]) -> tuple[str, ...]:
    """`queue`: when those came that are queued."""
    usage = process.usage
    return (
        process.pid,
        process.parent or "-",
        process.program,
        state_of(process, queue),
        pages_of(usage) if usage else "-",
        str(usage.tokens) if usage else "-",
        accept_rate(usage) if usage else "-",
        bid_of(usage) if usage else "-",
        balance_of(usage) if usage else "-",
        age((process.ended or now) - process.created),
    )


def state_of(process: ProcessView, queue: Sequence[float] = ()) -> str:
    """What it does, or waits for and behind how many, or how it ended."""
    if process.state == "ended":
        return f"ended: {process.outcome}"
    if process.state == "queued":
        num_before = bisect_left(queue, process.created)
        return f"queued (no host has room, {f'{num_before} before it' if num_before else 'it is next'})"
    return process.activity or process.state


def pages_of(usage: ProcessUsage) -> str:
    """On the device, and in host memory where some are: `12 + 3`."""
    return f"{usage.pages} + {usage.host_pages}" if usage.host_pages else str(usage.pages)


def accept_rate(usage: ProcessUsage) -> str:
    """Of the tokens that were guessed, how many were right: `76%`."""
    return f"{usage.accepted_tokens / usage.drafted_tokens:.0%}" if usage.drafted_tokens else "-"


def bid_of(usage: ProcessUsage) -> str:
    """The highest of its contexts, in credits for a page and a step."""
    from pie_engine.protocol.credits import shown

    return shown(usage.bid) if usage.state != "ended" else "-"


def balance_of(usage: ProcessUsage) -> str:
    """In credits; of one that has ended, what it had left. One that has used no model was given none."""
    from pie_engine.protocol.credits import shown

    return shown(usage.balance) if usage.state != "ended" or usage.endowment else "-"


def age(seconds: float) -> str:
    """`4.2s`, `3m12s`, `2h05m`, `3d04h`."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f}s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 60:
        return f"{minutes}m{int(seconds % 60):02}s"
    return f"{hours}h{minutes % 60:02}m" if hours < 24 else f"{days}d{hours % 24:02}h"


def _pages_line(model: dict[str, Any]) -> str:
    if "num_free_pages" not in model:
        # Without a core, or before the first numbers of one that has just come.
        failed = model.get("failed")
        return f"{model.get('name')}: " + (f"cannot start: {failed['message']}" if failed else "starting")
    total, free = int(model.get("num_pages", 0)), int(model.get("num_free_pages", 0))
    line = f"{model.get('name')}: {total - free} of {total} pages in use, {free} free"
    if cached := int(model.get("num_cached_pages", 0)):
        line += f" ({cached} of them cached)"
    if in_host := int(model.get("num_used_host_pages", 0)):
        line += f", {in_host} of {model.get('num_host_pages')} in host memory"
    hits, misses = int(model.get("num_page_hits", 0)), int(model.get("num_page_misses", 0))
    return f"{line}, {hits} of {hits + misses} prompt pages found in the cache" if hits + misses else line
