"""What somebody who waits for events sees when the real daemon goes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from pie_client import Event, NoDaemon, PieClient
from tests.integration.fake_engine import FakeEngine
from tests.integration.gateway.steps import BUNDLE, does

SOON_S = 10.0
"""Well below the 30 s for which a gateway is waited for."""


@pytest.fixture
async def waiting():
    """An engine, a client of it, and a task that waits for the next event of a process."""
    engine = FakeEngine()
    client = await engine.start()
    process = await client.launch_process(BUNDLE, does(["hang"]))
    assert (await process.recv())[0] is Event.Started
    yield engine, client, process, asyncio.create_task(process.recv())
    await client.close()
    engine.remove()


async def test_a_killed_daemon_is_no_daemon(waiting):
    engine, client, process, task = waiting
    os.kill((await client.health())["daemon_os_pid"], signal.SIGKILL)
    with pytest.raises(NoDaemon):
        await asyncio.wait_for(task, SOON_S)
    engine.spawn()
    async with PieClient(home=engine.home) as again:
        await engine.until_health(again, lambda health: health["status"] == "ok")
        event, error = [pair async for pair in await again.attach(process.pid, process.last_seq)][-1]
    assert (event, error.code) == (Event.Error, "lost")


async def test_a_daemon_that_is_stopped_says_how_the_process_ended(waiting):
    _, client, process, task = waiting
    await client.stop_daemon()
    event, error = await asyncio.wait_for(task, SOON_S)
    assert (event, error.code) in {(Event.Error, "cancelled"), (Event.Error, "daemon_stopped")}
    with pytest.raises(type(error.raised())):
        await process.result()
