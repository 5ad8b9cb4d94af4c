"""Hosts, gateways, daemons and disks that fail: what was acknowledged stays."""

from __future__ import annotations

import asyncio
import os
import signal

from pie_client import Event
from tests.integration.fake_engine import member
from tests.integration.gateway.steps import BUNDLE, database, does, ending, kinds_and_values, num_terminal_events, until


async def test_a_dead_host_ends_its_processes_and_comes_back(own):
    engine, client = await own()
    processes = [await client.launch_process(BUNDLE, does(["message", 1], ["hang"])) for _ in range(3)]
    for process in processes:
        await until(process, (Event.Message, 1))
    await engine.kill(client, "host-0")
    for process in processes:
        event, error = await ending(process)
        assert (event, error.code, error.retry) == (Event.Error, "host_lost", True)
    assert await (await client.launch_process(BUNDLE, does(["return", 5]))).result() == 5
    assert set(num_terminal_events(engine).values()) == {1}


async def test_a_dead_gateway_loses_nothing_acknowledged(own):
    engine, client = await own()
    process = await client.launch_process(BUNDLE, does(["receive"], ["receive"], ["return", 9]), on_disconnect="detach")
    busy = await client.launch_process(BUNDLE, does(["many", 200], ["sleep", 1.5], ["many", 200]))
    uploaded = await client.upload(BUNDLE)
    await process.send("before")
    await engine.kill(client, "gateway")
    await process.send("after")
    pairs = await kinds_and_values(process)
    assert [value for event, value in pairs if event is Event.Message] == ["before", "after"]
    assert pairs[-1] == (Event.Return, 9)
    numbers = [value for event, value in await kinds_and_values(busy) if event is Event.Message]
    assert numbers == [*range(200), *range(200)]
    assert await (await client.launch_process(uploaded.digest, does(["return", 1]))).result() == 1
    assert set(num_terminal_events(engine).values()) == {1}


async def test_launches_while_the_gateway_dies_happen_once(own):
    engine, client = await own()

    async def one(number):
        process = await client.launch_process(BUNDLE, does(["message", number], ["return", number]))
        pairs = await kinds_and_values(process)
        assert [pair for pair in pairs if pair[0] is Event.Message] == [(Event.Message, number)]
        return pairs[-1]

    launches = [asyncio.create_task(one(number)) for number in range(60)]
    await asyncio.sleep(0.05)
    os.kill(member(await client.health(), "gateway")["os_pid"], signal.SIGKILL)
    assert await asyncio.gather(*launches) == [(Event.Return, number) for number in range(60)]
    counted = num_terminal_events(engine)
    assert len(counted) == 60
    assert set(counted.values()) == {1}


async def test_a_queue_survives_the_gateway(own):
    engine, client = await own(host={"max_processes": 1})
    first = await client.launch_process(BUNDLE, does(["receive"]), on_disconnect="detach")
    queued = await client.launch_process(BUNDLE, does(["receive"]), on_disconnect="detach")
    unwanted = await client.launch_process(BUNDLE, does(["receive"]), on_disconnect="detach")
    await queued.send("kept")
    await unwanted.terminate()
    await engine.kill(client, "gateway")
    assert (await ending(unwanted))[1].code == "cancelled"
    await first.send(1)
    assert (await ending(first))[0] is Event.Return
    assert (Event.Message, "kept") in await kinds_and_values(queued)


async def test_host_and_gateway_dead_together(own):
    engine, client = await own()
    process = await client.launch_process(BUNDLE, does(["message", 1], ["hang"]))
    await until(process, (Event.Message, 1))
    health = await client.health()
    for name in ("gateway", "host-0"):
        os.kill(member(health, name)["os_pid"], signal.SIGKILL)
    event, error = await ending(process)
    assert (event, error.code) == (Event.Error, "lost")
    assert set(num_terminal_events(engine).values()) == {1}


async def test_what_ran_under_a_killed_daemon_is_lost_under_the_next(own):
    engine, client = await own()
    process = await client.launch_process(BUNDLE, does(["hang"]), on_disconnect="detach")
    done = await client.launch_process(BUNDLE, does(["return", 1]))
    await ending(done)
    old = (await client.health())["os_pid"]
    engine.process.kill()
    engine.process.wait()
    await client.close()
    again = await engine.start()
    # For a moment the old gateway may still have answered.
    await engine.until_health(again, lambda health: health["status"] == "ok" and health["os_pid"] != old)
    event, error = await ending(await again.attach(process.pid))
    assert (event, error.code) == (Event.Error, "lost")
    assert (await ending(await again.attach(done.pid))) == (Event.Return, 1)
    assert [view["pid"] for view in await again.list_processes(with_ended=True)] == [done.pid, process.pid]
    await again.close()


async def test_a_full_disk_refuses_launches_and_keeps_events(own):
    engine, client = await own()
    process = await client.launch_process(BUNDLE, does(["receive"], ["message", "kept"], ["return", 1]))
    # Another writer holds the database: to the gateway it is as if nothing could be written.
    lock = database(engine)
    lock.isolation_level = None
    lock.execute("BEGIN IMMEDIATE")
    sending = asyncio.create_task(process.send("go"))
    await asyncio.sleep(0.5)
    assert not sending.done()
    lock.execute("ROLLBACK")
    await sending
    assert (await ending(process)) == (Event.Return, 1)
