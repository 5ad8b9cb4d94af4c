"""The gateway through its HTTP API and pie_client, with a host that only speaks the protocol."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3

import pytest

from pie_client import EndOfEvents, Event, NoDaemon, PieClient
from pie_engine.errors import NotFound, PieError
from pie_engine.protocol.program import Bundle, Manifest
from tests.integration.fake_engine import FakeEngine, member

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


@pytest.fixture(scope="module")
async def engine():
    """One for the tests that leave it as it was."""
    running = FakeEngine()
    client = await running.start()
    yield running
    await client.close()
    running.remove()


@pytest.fixture
async def client(engine):
    async with PieClient(home=engine.home) as connected:
        yield connected


@pytest.fixture
async def own():
    """Makes engines that a test may break: `await own(**settings)` gives (engine, client)."""
    made = []

    async def make(**settings):
        engine = FakeEngine(**settings)
        made.append((engine, await engine.start()))
        return made[-1]

    yield make
    for engine, client in made:
        await client.close()
        engine.remove()


class RawHttp:
    """Requests as anybody could send them."""

    def __init__(self, engine):
        self.path = str(engine.home / "run" / "api.sock")

    async def __call__(self, method, path, body=b"", **headers):
        reader, writer = await asyncio.open_unix_connection(self.path)
        lines = [f"{method} {path} HTTP/1.1", "Host: pie", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "\r\n"]).encode() + body)
        head, _, text = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
        return int(head.split()[1]), fields, text.decode()


@pytest.fixture
def http(engine):
    return RawHttp(engine)


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
    with pytest.raises(PieError, match="has ended"):
        await process.send(1)


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


# Deaths.


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


# HTTP.


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b"{", 400, "not JSON"),
        (b'{"program": 3}', 400, "$.program"),
        (b"{}", 400, "either"),
        (b'{"program": "x", "inputs": {}}', 400, "inputs"),
        (b'{"bundle": {"manifest": {"name": "a"}, "files": {"main.py": ""}}, "input": [1]}', 400, "JSON object"),
        (b'{"bundle": {"manifest": {"name": "a"}, "files": {}}}', 422, "no module"),
        (b'{"bundle": {"manifest": {"name": "a"}, "files": {"../x.py": "", "main.py": ""}}}', 422, "../x.py"),
        (b'{"bundle": {"manifest": {"name": "a b"}, "files": {"main.py": ""}}}', 422, "a b"),
        (b'{"bundle": {"manifest": {"name": "a"}, "files": {"main.py": ""}, "blobs": {"x.so": ""}}}', 422, "native"),
    ],
)
async def test_bad_launches_name_what_is_wrong(http, body, status, part):
    answered, _, text = await http("POST", "/v1/processes", body)
    assert answered == status, text
    assert part in json.loads(text)["error"]["message"]


async def test_another_protocol_is_426_except_where_it_must_not_be(http):
    status, _, text = await http("GET", "/v1/models", Pie_Protocol="99")
    error = json.loads(text)["error"]
    assert (status, error["code"]) == (426, "protocol_mismatch")
    assert "99" in error["message"]
    assert "--drain" in error["hint"]
    assert (await http("POST", "/v1/processes", b"{}", Pie_Protocol="99"))[0] == 426
    assert (await http("GET", "/healthz", Pie_Protocol="99"))[0] == 200


async def test_bodies_are_bounded(http):
    status, _, text = await http("POST", "/v1/processes", b"", Content_Length=str(10**9))
    assert status in (400, 413), text


async def test_a_launch_as_a_stream_names_the_pid_first(http):
    body = json.dumps({"bundle": {"manifest": {"name": "a"}, "files": {"main.py": ""}}}).encode()
    status, headers, text = await http("POST", "/v1/processes", body, Accept="text/event-stream")
    assert (status, headers["content-type"]) == (201, "text/event-stream; charset=utf-8")
    assert f": pid {headers['pie-pid']}\n\n" in text
    assert 'id: 1\nevent: started\ndata: {"program": "a", "version": "0.0.0"}\n\n' in text
    status, headers, text = await http("POST", "/v1/processes", body)
    assert (status, json.loads(text)["pid"]) == (201, headers["pie-pid"])


async def test_adapters_are_added_listed_and_removed(own, tmp_path):
    engine, client = await own()
    added = await client.add_adapter("pirate", tmp_path)
    assert (added.name, added.model, added.rank, added.folder) == ("pirate", "tiny", 4, str(tmp_path))
    assert await client.adapters() == [added]
    with pytest.raises(NotFound, match="no model is called 'large'"):
        await client.add_adapter("pirate", tmp_path, "large")
    body = json.dumps({"name": "broken", "folder": str(tmp_path)}).encode()
    status, _, text = await RawHttp(engine)("POST", "/v1/adapters", body)
    assert (status, json.loads(text)["error"]["code"]) == (422, "model_error")
    with pytest.raises(NotFound, match="no adapter called `poet`"):
        await client.remove_adapter("poet", "tiny")
    with pytest.raises(PieError) as caught:
        await client.remove_adapter("dying")
    assert caught.value.code == "core_lost"
    await engine.until_health(client, lambda health: health["status"] != "starting" and member(health, "tiny")["ready"])
    await client.add_adapter("pirate", tmp_path)
    await client.remove_adapter("pirate")
    assert await client.adapters() == []


async def test_other_routes(http):
    status, _, text = await http("GET", "/v1/stats")
    stats = json.loads(text)
    assert (status, stats["cores"][0]["model"], stats["hosts"][0]["name"]) == (200, "tiny", "host-0")
    assert json.loads((await http("GET", "/v1/models"))[2])["models"][0]["num_free_pages"] == 64
    status, _, text = await http("GET", "/v1/nothing")
    assert (status, json.loads(text)["error"]["code"]) == (404, "not_found")
    assert (await http("PATCH", "/v1/processes/x"))[0] in (404, 405)
    assert (await http("GET", "/v1/processes?all=perhaps"))[0] == 400
    for limit in (-1, "many"):
        status, _, text = await http("GET", f"/v1/processes?limit={limit}")
        error = json.loads(text)["error"]
        assert (status, error["code"]) == (400, "invalid_input")
        assert "`limit`" in error["message"]


async def test_openapi_describes_every_body(client, http):
    page = json.loads((await http("GET", "/openapi.json"))[2])
    schemas = page["components"]["schemas"]
    assert {"post", "get"} <= set(page["paths"]["/v1/processes"])
    for path, operations in page["paths"].items():
        for operation in operations.values():
            assert "default" in operation["responses"], path
            assert "422" not in operation["responses"], path
            for response in operation["responses"].values():
                assert all(content["schema"] for content in response["content"].values()), path
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)
    assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(page))) <= set(schemas)
    process = await client.launch_process(BUNDLE, does(["return", 1]))
    assert await process.result() == 1
    await client.upload(BUNDLE)
    for path in ("/v1/models", "/v1/stats", "/v1/programs", "/v1/processes", "/healthz"):
        query = "?all=true" if path == "/v1/processes" else ""
        answer = json.loads((await http("GET", path + query))[2])
        operation = page["paths"][path]["get"]
        assert answer
        check_shape(answer, operation["responses"]["200"]["content"]["application/json"]["schema"], schemas)


def check_shape(value, schema, schemas):
    """Objects have the fields that their schemas ask for and no others."""
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if isinstance(value, list):
        for item in value:
            check_shape(item, schema["items"], schemas)
    elif isinstance(value, dict) and "properties" in schema:
        assert set(schema["required"]) <= set(value), schema["title"]
        assert set(value) <= set(schema["properties"]), schema["title"]
        for key, part in value.items():
            check_shape(part, schema["properties"][key], schemas)


async def test_no_daemon_is_said_at_once(tmp_path):
    async with PieClient(home=tmp_path) as client:
        with pytest.raises(NoDaemon, match=r"api\.sock"):
            await client.launch_process(BUNDLE)


async def test_tcp_is_for_this_machine_only(own):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine, _ = await own(gateway={"listen": f"127.0.0.1:{port}"})
    async with PieClient(home=engine.home, url=f"http://127.0.0.1:{port}") as client:
        process = await client.launch_process(BUNDLE, does(["message", 1], ["return", 2]))
        assert (await ending(process)) == (Event.Return, 2)
        with pytest.raises(PieError) as caught:
            await client.inspect("nope")
        assert caught.value.code == "not_found"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert b" 400 " in await reader.readline()
    writer.close()
