"""Deleting what ended long ago, on request."""

from __future__ import annotations

import asyncio

import pytest

from pie_client import InvalidInput, NotFound
from pie_engine.protocol.program import Bundle, Manifest

TALKER = Bundle(Manifest(name="talker"), {"main.py": "async def main(): ..."})


async def ended(client, steps):
    process = await client.launch_process(TALKER, input={"do": steps})
    async for _ in process:
        pass
    return process.pid


async def test_ended_processes_go_and_their_room_is_given_back(own):
    _, client = await own()
    pids = [await ended(client, [["message", "x" * 200_000]]) for _ in range(5)]
    assert (await client.collect(3600)).processes == 0
    looked = await client.collect(0, dry_run=True)
    assert (looked.processes, looked.bytes_after) == (5, looked.bytes_before)
    assert (await client.inspect(pids[0]))["state"] == "ended"
    done = await client.collect(0)
    assert done.processes == 5
    assert done.bytes_after < done.bytes_before - 500_000
    with pytest.raises(NotFound):
        await client.inspect(pids[0])
    assert await ended(client, [["message", 1]])


async def test_those_that_run_are_left_alone(own):
    _, client = await own()
    process = await client.launch_process(TALKER, input={"do": [["message", 1], ["receive"]]})
    await ended(client, [])
    assert (await client.collect(0)).processes == 1
    await process.send("on")
    async with asyncio.timeout(20):
        assert [value async for _, value in process][-1] is None


async def test_a_negative_age_is_refused(client):
    with pytest.raises(InvalidInput, match="older_than_s"):
        await client.collect(-1)
