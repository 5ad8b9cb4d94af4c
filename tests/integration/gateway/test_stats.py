"""Snapshots over HTTP: one, a stream of them, and the contexts of a process."""

import asyncio
import json
import signal
import socket
from contextlib import aclosing

import httpx
import pytest

from pie_client import InvalidInput, NoDaemon, NotFound, PieClient, PieError
from tests.integration.gateway.steps import BUNDLE, does


async def next_where(stream, is_so):
    async with asyncio.timeout(10):
        async for snapshot in stream:
            if is_so(snapshot):
                return snapshot
    raise AssertionError("the stream has ended")


async def test_snapshots_say_how_everything_is_as_often_as_somebody_looks(own):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    _, client = await own(gateway={"listen": f"127.0.0.1:{port}"})
    process = await client.launch_process(BUNDLE, does(["message", "here"], ["receive"]))
    await process.recv()
    failing = await client.launch_process(BUNDLE, does(["raise"]))
    with pytest.raises(PieError, match="ValueError"):
        await failing.result()
    snapshot = await client.stats()
    [model], [host], [program] = snapshot.models, snapshot.hosts, snapshot.programs
    assert (model.name, model.ready, model.driver, model.pages.num_pages, model.pages.page_size) == (
        "tiny", True, "fake", 64, 16,
    )  # fmt: skip
    assert (host.name, program.pid, program.state, program.program) == ("host-0", process.pid, "running", "steps")
    requests = snapshot.requests
    assert (requests.num_launched, requests.num_running, requests.num_failed) == (2, 1, 1)
    assert requests.errors == {"exception": 1}
    assert sum(requests.queue_s.counts) == 2
    # The stand-in for a core says as its peak how often it was asked to report.
    async with aclosing(client.stats_stream(interval_ms=300)) as slow:
        await next_where(slow, lambda snapshot: snapshot.models[0].batches.peak_sequences == 300)
        async with (
            PieClient(url=f"http://127.0.0.1:{port}") as far,
            aclosing(far.stats_stream(interval_ms=100)) as fast,
        ):
            first = await next_where(fast, lambda snapshot: snapshot.models[0].batches.peak_sequences == 100)
            assert 0.05 < (await anext(fast)).at - first.at < 1
        await next_where(slow, lambda snapshot: snapshot.models[0].batches.peak_sequences == 300)
    async with asyncio.timeout(10):
        while (await client.stats()).models[0].batches.peak_sequences != 500:
            await asyncio.sleep(0.02)
    async with httpx.AsyncClient(trust_env=False) as stranger:
        assert (await stranger.get(f"{url}/v1/stats/stream", headers={"Host": "evil.example"})).status_code == 400


async def test_a_stream_goes_on_with_another_gateway_and_ends_with_the_daemon(own):
    engine, client = await own()
    async with aclosing(client.stats_stream(interval_ms=100)) as stream:
        boot = (await anext(stream)).boot
        await engine.kill(client, "gateway")
        await next_where(stream, lambda snapshot: snapshot.boot != boot)
        engine.process.send_signal(signal.SIGTERM)
        with pytest.raises(NoDaemon):
            await next_where(stream, lambda snapshot: False)
    assert engine.process.wait(10) == 0


async def test_a_reader_that_does_not_read_gets_the_newest(client):
    stream = client.stats_stream(interval_ms=100)
    async with aclosing(stream):
        before = await anext(stream)
        await asyncio.sleep(0.5)
        late = await anext(stream)
    assert late.at - before.at > 0.3


@pytest.mark.parametrize("interval", ["99", "30001", "soon"])
async def test_an_interval_that_is_not_served_is_refused(http, interval):
    status, _, text = await http("GET", f"/v1/stats/stream?interval_ms={interval}")
    error = json.loads(text)["error"]
    assert (status, error["code"]) == (400, "invalid_input")
    assert "`interval_ms`" in error["message"]


async def test_the_client_raises_what_a_stream_is_refused_with(client):
    with pytest.raises(InvalidInput, match="`interval_ms` has to be from 100 to 30000"):
        await anext(client.stats_stream(interval_ms=1))


async def test_metrics_for_prometheus(http):
    status, headers, text = await http("GET", "/metrics")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert 'pie_kv_pages{model="tiny",state="free"} 64.0' in text
    assert (await http("GET", "/metrics", Accept="application/openmetrics-text"))[2].endswith("# EOF\n")


async def test_contexts_of_a_process(client):
    process = await client.launch_process(BUNDLE, does(["receive"]))
    [context] = await client.contexts_of(process.pid)
    assert (context.ctx, context.num_tokens, context.parent) == (1, 20, None)
    with pytest.raises(NotFound, match="no process `nobody`"):
        await client.contexts_of("nobody")
    await process.terminate()
