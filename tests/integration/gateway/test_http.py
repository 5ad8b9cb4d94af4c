"""The HTTP API as anybody could use it."""

from __future__ import annotations

import asyncio
import json
import re
import socket

import pytest

from pie_client import Event, NoDaemon, PieClient
from pie_engine.errors import NotFound, PieError, Unsupported
from tests.integration.fake_engine import member
from tests.integration.gateway.steps import BUNDLE, does, ending
from tests.integration.raw_http import RawHttp


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
        (b'{"bundle": {"manifest": {"name": "a"}, "files": {"main.py": ""}}, "native": "here"}', 400, "absolute path"),
        (
            b'{"bundle": {"manifest": {"name": "a"}, "files": {"main.py": ""}}, "native": "/s", "trace": ["record"]}',
            422,
            "cannot be recorded",
        ),
        (
            b'{"native": "/s", "bundle": {"manifest": {"name": "a", "runtime": "component"},'
            b' "blobs": {"program.wasm": "AGFzbQ0AAQA="}}}',
            422,
            "is a component",
        ),
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
        with pytest.raises(Unsupported, match="this one came over TCP"):
            await client.launch_process(BUNDLE, native="/tmp/socket")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert b" 400 " in await reader.readline()
    writer.close()
