"""Launching, following, messages, limits and programs, through pie_client."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from pie_client import EndOfEvents, Event, PieClient
from pie_engine.errors import NotFound, PieError
from pie_engine.protocol.program import Bundle, Manifest
from tests.integration.gateway.steps import BUNDLE, does, ending, kinds_and_values, num_terminal_events
from tests.integration.raw_http import RawHttp

# Launching and following.


async def test_a_process_from_launch_to_return(client):
    process = await client.launch_process(BUNDLE, does(["message", {"a": 1}], ["stdout", "hi\n"], ["return", 3]))
    assert await kinds_and_values(process) == [
        (Event.Started, {"program": "steps", "version": "1.0.0"}),
        (Event.Message, {"a": 1}),
        (Event.Stdout, "hi\n"),
        (Event.Return, 3),
    ]
    with pytest.raises(EndOfEvents):
        await process.recv()
    view = await client.inspect(process.pid)
    assert (view["state"], view["outcome"], view["last_event"], view["host"]) == ("ended", "return", 4, "host-0")


@pytest.mark.parametrize("is_late", [False, True])
async def test_what_a_process_has_paid_in_the_end_is_kept(client, is_late):
    """Its host hears of it after the end: the cores settle when it has left."""
    process = await client.launch_process(BUNDLE, does(["settle", 3, 10, is_late]))
    assert (await ending(process))[0] is Event.Return
    async with asyncio.timeout(10):
        while not (usage := (await client.inspect(process.pid))["usage"])["spent"]:
            await asyncio.sleep(0.01)
    assert (usage["spent"], usage["endowment"], usage["balance"]) == (3, 10, 7)


async def test_an_error_is_a_value_and_result_raises_it(client):
    process = await client.launch_process(BUNDLE, does(["raise"]))
    event, error = await ending(process)
    assert (event, error.code, error.message) == (Event.Error, "exception", "ValueError: no")
    again = await client.attach(process.pid)
    with pytest.raises(PieError, match="ValueError: no"):
        await again.result()


async def test_messages_arrive_in_order_and_are_numbered(client):
    process = await client.launch_process(BUNDLE, does(*[["receive"]] * 20))
    assert [await process.send(n) for n in range(20)] == list(range(1, 21))
    pairs = await kinds_and_values(process)
    assert [value for event, value in pairs if event is Event.Message] == list(range(20))


async def test_a_message_to_a_process_that_has_ended_is_refused(client):
    process = await client.launch_process(BUNDLE)
    await ending(process)
    with pytest.raises(PieError, match="has ended") as caught:
        await process.send(1)
    assert caught.value.hint == f"`pie logs {process.pid}` shows how"


async def test_terminate_again_and_again_ends_it_once(client, engine):
    process = await client.launch_process(BUNDLE, does(["hang"]))
    await asyncio.gather(*(process.terminate() for _ in range(5)))
    assert (await ending(process))[1].code == "cancelled"
    await process.terminate()
    assert num_terminal_events(engine)[process.pid] == 1


async def test_terminate_racing_with_return(client, engine):
    async def race():
        process = await client.launch_process(BUNDLE, does(["sleep", 0.01], ["return", 1]))
        await asyncio.sleep(0.008)
        await process.terminate()
        return process.pid, await ending(process)

    ends = await asyncio.gather(*(race() for _ in range(50)))
    counted = num_terminal_events(engine)
    assert all(counted[pid] == 1 for pid, _ in ends)


async def test_500_at_once(client):
    async def one(number):
        return await (await client.launch_process(BUNDLE, does(["return", number]))).result()

    assert await asyncio.gather(*(one(number) for number in range(500))) == list(range(500))
    assert await client.list_processes() == []


async def test_attach_anywhere_in_the_log(client):
    process = await client.launch_process(BUNDLE, does(["many", 1000], ["return", None]))
    await ending(process)
    for after in (0, 1, 500, 1001, 1002):
        again = await client.attach(process.pid, after)
        pairs = await kinds_and_values(again)
        assert len(pairs) == 1002 - after
    events = await client.events(process.pid)
    assert [event["seq"] for event in events] == list(range(1, 1003))
    assert events[5]["data"] == 4


async def test_followers_that_come_late_or_read_slowly_miss_nothing(client):
    process = await client.launch_process(BUNDLE, does(["receive"], ["many", 3000]))
    slow, seen = await client.attach(process.pid), []
    await process.send("go")
    async for event, value in slow:
        if event is Event.Message:
            seen.append(value)
        if len(seen) % 500 == 0:
            await asyncio.sleep(0.01)
    assert seen == ["go", *range(3000)]
    assert len(await kinds_and_values(await client.attach(process.pid))) == 3003


async def test_a_client_that_reads_nothing_costs_the_gateway_little(client, engine):
    process = await client.launch_process(BUNDLE, does(["receive"]), on_disconnect="detach")
    idle = socket.socket(socket.AF_UNIX)
    idle.connect(str(engine.home / "run" / "api.sock"))
    idle.sendall(f"GET /v1/processes/{process.pid}/events HTTP/1.1\r\nHost: pie\r\n\r\n".encode())
    big = await client.launch_process(BUNDLE, does(*[["stdout", "x" * 1_000_000]] * 30))
    idle_too = socket.socket(socket.AF_UNIX)
    idle_too.connect(str(engine.home / "run" / "api.sock"))
    idle_too.sendall(f"GET /v1/processes/{big.pid}/events HTTP/1.1\r\nHost: pie\r\n\r\n".encode())
    printed = [value for event, value in await kinds_and_values(big) if event is Event.Stdout]
    assert [len(value) for value in printed] == [1_000_000] * 30
    idle.close()
    idle_too.close()
    await process.send(1)
    await ending(process)


async def test_a_large_event_arrives_whole(client):
    text = "é" * 3_000_000
    process = await client.launch_process(BUNDLE, does(["message", text]))
    pairs = await kinds_and_values(process)
    assert pairs[1] == (Event.Message, text)


# Idempotency, limits, queue.


async def test_the_same_key_gives_the_same_process(client):
    launches = [client.launch_process(BUNDLE, does(["message", 1]), idempotency_key="once") for _ in range(8)]
    processes = await asyncio.gather(*launches)
    assert len({process.pid for process in processes}) == 1
    for process in processes:
        assert len(await kinds_and_values(process)) == 3
    later = await client.launch_process(BUNDLE, does(["message", 1]), idempotency_key="once")
    assert later.pid == processes[0].pid
    with pytest.raises(PieError, match="another launch"):
        await client.launch_process(BUNDLE, does(["message", 2]), idempotency_key="once")


async def test_over_the_limit_is_429_and_a_host_takes_what_it_can(own):
    engine, client = await own(host={"max_processes": 2}, gateway={"max_processes": 4})
    processes = [await client.launch_process(BUNDLE, does(["receive"])) for _ in range(4)]
    states = [view["state"] for view in await client.list_processes()]
    assert states == ["running", "running", "queued", "queued"]
    with pytest.raises(PieError) as caught:
        await client.launch_process(BUNDLE)
    assert caught.value.code == "queue_limit"
    body = json.dumps({"bundle": {"manifest": {"name": "a"}, "files": {"main.py": ""}}}).encode()
    status, headers, _ = await RawHttp(engine)("POST", "/v1/processes", body)
    assert (status, headers["retry-after"]) == (429, "1")
    await processes[3].terminate()
    assert (await ending(processes[3]))[1].code == "cancelled"
    await processes[2].send("while queued")
    for process in processes[:2]:
        await process.send(0)
        assert (await ending(process))[0] is Event.Return
    assert (Event.Message, "while queued") in await kinds_and_values(processes[2])


# Clients that leave.


async def test_the_last_client_gone_ends_it_after_the_grace(own):
    engine, client = await own(gateway={"disconnect_grace_s": 0.3})
    async with PieClient(home=engine.home) as other:
        kept = await other.launch_process(BUNDLE, does(["hang"]), on_disconnect="detach")
        left = await other.launch_process(BUNDLE, does(["hang"]), on_disconnect="terminate")
        watched = await other.launch_process(BUNDLE, does(["hang"]), on_disconnect="terminate")
        watcher = await client.attach(watched.pid)
    await asyncio.sleep(0.1)
    assert (await client.inspect(left.pid))["state"] == "running"
    await asyncio.sleep(0.6)
    assert (await client.inspect(left.pid))["outcome"] == "cancelled"
    assert (await client.inspect(kept.pid))["state"] == "running"
    assert (await client.inspect(watched.pid))["state"] == "running"
    await watcher.terminate()


# Programs.


async def test_upload_gives_the_signature_and_names_stand_for_the_newest(client):
    first = await client.upload(BUNDLE)
    assert first.digest == BUNDLE.digest
    assert first.signature.parameters[0].name == "do"
    edited = Bundle(BUNDLE.manifest, {"main.py": "async def main(): return 2\n"})
    second = await client.upload(edited)
    for reference in ("steps", "steps@1.0.0"):
        assert (await client.program(reference)).digest == second.digest
    assert (await client.program(first.digest)).digest == first.digest
    process = await client.launch_process("steps", does(["return", 1]))
    await ending(process)
    assert (await client.inspect(process.pid))["digest"] == second.digest
    assert [view.name for view in await client.programs()] == ["steps"]
    await client.upload(BUNDLE)
    assert (await client.program("steps")).digest == first.digest


async def test_what_is_only_described_gets_no_name(client):
    described = await client.describe(Bundle(Manifest(name="unnamed"), {"main.py": "async def main(): ...\n"}))
    assert described.signature.parameters[0].name == "do"
    assert "unnamed" not in [program.name for program in await client.programs()]
    with pytest.raises(NotFound):
        await client.program("unnamed")
    assert (await client.program(described.digest)).name == "unnamed"


async def test_a_program_that_cannot_be_read_is_refused(client):
    with pytest.raises(PieError) as caught:
        await client.upload(Bundle(Manifest(name="bad"), {"main.py": "invalid"}))
    assert caught.value.code == "invalid_program"
    with pytest.raises(PieError, match="bad"):
        await client.program("bad")


async def test_unknown_things_are_not_found(client):
    for ask in (
        client.launch_process("nobody"),
        client.attach("nope"),
        client.inspect("nope"),
        client.program("nobody@1"),
        client.request("DELETE", "/v1/processes/nope"),
    ):
        with pytest.raises(PieError) as caught:
            await ask
        assert caught.value.code == "not_found"
