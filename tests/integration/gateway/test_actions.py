"""What an owner does to a process that runs: pause, resume, bid, endow."""

import asyncio
import json

import msgspec
import pytest

from pie_cli.app import build_app
from pie_cli.commands import bid, endow, pause, ps, resume, stats
from pie_client import InvalidInput, NotFound, Snapshot
from tests.integration.gateway.steps import BUNDLE, does


@pytest.mark.slow
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


async def test_the_command_line_does_the_same(engine, client, monkeypatch, capfd):
    monkeypatch.setenv("PIE_HOME", str(engine.home))
    process = await client.launch_process(BUNDLE, does(["message", 1], ["receive"]))
    assert (await process.recv())[1] == {"program": "steps", "version": "1.0.0"}

    app, commands = build_app(has_options=False), []
    for command in (bid, endow, pause, ps, resume, stats):
        monkeypatch.setattr(command, "run_async", commands.append)

    async def pie(*words):
        app([*words], standalone_mode=False)
        await commands.pop()
        return tuple(capfd.readouterr())

    pid = process.pid
    assert await pie("pause", pid[:8], pid) == ("", f"{pid} is paused\n")
    assert "paused" in (await pie("ps"))[0]
    snapshot = msgspec.json.decode((await pie("stats", "--json"))[0], type=Snapshot)
    assert [program.state for program in snapshot.programs if program.pid == pid] == ["paused"]
    assert "LATENCY" in (await pie("stats"))[0]
    assert await pie("bid", pid, "0.5") == ("", f"{pid} bids 0.5\n")
    assert await pie("bid", pid, "default") == ("", f"{pid} bids for itself\n")
    with pytest.raises(InvalidInput, match="a bid is a number of credits or `default`; got `much`"):
        await pie("bid", pid, "much")
    assert await pie("endow", pid, "12.5") == ("", f"{pid} got 12.5 credits\n")
    await process.send("late")
    assert await pie("resume", pid) == ("", f"{pid} goes on\n")
    assert [value async for value in process.messages()] == [1, "late"]
