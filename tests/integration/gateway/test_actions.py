"""What an owner does to a process that runs: pause, resume, bid, endow."""

import asyncio
import json

import pytest

from pie_client import InvalidInput, NotFound
from tests.integration.gateway.steps import BUNDLE, does


async def test_a_paused_process_says_so_and_goes_on_after_its_gateway_has_died(own):
    engine, client = await own()
    process = await client.launch_process(BUNDLE, does(["message", 1], ["receive"]))
    await process.recv()
    await process.recv()
    await client.pause(process.pid)
    await client.pause(process.pid)
    await process.send("late")
    assert (await client.inspect(process.pid))["state"] == "paused"
    assert [program.state for program in (await client.stats()).programs] == ["paused"]
    await engine.kill(client, "gateway")
    async with asyncio.timeout(10):
        while (await client.inspect(process.pid))["state"] != "paused":
            await asyncio.sleep(0.02)
    await client.resume(process.pid)
    assert [value async for value in process.messages()] == ["late"]


async def test_kill_ends_a_paused_process(client):
    process = await client.launch_process(BUNDLE, does(["hang"]))
    await client.pause(process.pid)
    await process.terminate()
    with pytest.raises(Exception, match="terminated"):
        await process.result()
    for act in (client.pause, client.resume, lambda pid: client.bid(pid, 1), lambda pid: client.endow(pid, 1)):
        with pytest.raises(InvalidInput, match="has ended"):
            await act(process.pid)


async def test_what_cannot_be_done_is_refused(client, http):
    process = await client.launch_process(BUNDLE, does(["hang"]))
    for act in (client.pause, client.resume, lambda pid: client.bid(pid, 1), lambda pid: client.endow(pid, 1)):
        with pytest.raises(NotFound, match="no process `nobody`"):
            await act("nobody")
    await client.bid(process.pid, 0.5)
    await client.bid(process.pid, None)
    await client.endow(process.pid, 10)
    with pytest.raises(InvalidInput, match="a bid is a number of credits"):
        await client.bid(process.pid, -1)
    with pytest.raises(InvalidInput):
        await client.endow(process.pid, 1e9)
    for body in (b"{}", b"no", b'{"credits": "many"}', b'{"credits": 1, "more": 2}'):
        status, _, text = await http("POST", f"/v1/processes/{process.pid}/bid", body)
        assert (status, json.loads(text)["error"]["code"]) == (400, "invalid_input")
    await process.terminate()
