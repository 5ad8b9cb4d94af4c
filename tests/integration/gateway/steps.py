"""A program that does what its input says, and how its processes are followed."""

from __future__ import annotations

import asyncio
import sqlite3

from pie_engine.protocol.program import Bundle, Manifest

BUNDLE = Bundle(Manifest(name="steps", version="1.0.0"), {"main.py": "async def main(): ...\n"})


def does(*steps):
    return {"do": list(steps)}


async def kinds_and_values(process):
    async with asyncio.timeout(30):
        return [pair async for pair in process]


async def ending(process):
    pairs = await kinds_and_values(process)
    assert [event.is_terminal for event, _ in pairs].count(True) == 1, pairs
    return pairs[-1]


async def until(process, wanted):
    async with asyncio.timeout(30):
        async for event, value in process:
            if (event, value) == wanted:
                return
    raise AssertionError(f"ended without {wanted}")


def database(engine):
    return sqlite3.connect(engine.home / "pie.sqlite")


def num_terminal_events(engine):
    rows = database(engine).execute(
        "SELECT pid, (SELECT count(*) FROM events WHERE process = processes.id AND kind IN ('return', 'error'))"
        " FROM processes"
    )
    return dict(rows.fetchall())
