"""Traces for a collector of OpenTelemetry."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from pie_engine.errors import InvalidConfig
from pie_engine.gateway.process import Process
from pie_engine.gateway.spans import spans_of
from pie_engine.gateway.telemetry import MAX_WAITING, Telemetry
from pie_engine.host.generations import MAX_GATHERED, GenerationLog
from pie_engine.protocol.plan import Usage
from pie_engine.protocol.to_gateway import Generation, Generations
from tests.unit.test_store import record


def ended(number: int = 1, outcome: str = "return") -> Process:
    process = Process(record(number))
    process.ended, process.outcome = process.record.created + 2.0, outcome
    process.usage = Usage(10, 4, 20)
    return process


class Collector:
    """Takes what is posted to it, or refuses it."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[str, dict]] = []

    async def __aenter__(self) -> Collector:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(line for line in head.split("\r\n") if line.lower().startswith("content-length"))
                body = await reader.readexactly(int(length.split(":")[1]))
                self.got.append((head.split()[1], json.loads(body)))
                writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        writer.close()

    async def until(self, num_requests: int) -> None:
        async with asyncio.timeout(10):
            while len(self.got) < num_requests:
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(port: int):
    telemetry = Telemetry(f"http://127.0.0.1:{port}/", every_s=0.01)
    task = asyncio.create_task(telemetry.run())
    yield telemetry
    assert not task.done(), "nothing that happens to a collector ends it"
    task.cancel()
    await asyncio.wait({task})


def test_a_process_is_a_span_with_children():
    process = ended()
    at = process.record.created
    done = Generation("tiny", at + 0.5, at + 0.6, at + 1.5, "stop", Usage(10, 4, 20))
    told = Generations(process.pid, [done, Generation("tiny", at + 1.6)], num_left_out=3)
    root, queue, generation, cut = spans_of(process, at + 0.25, told)
    assert (root["name"], root["status"], "parentSpanId" in root) == (process.record.program, {"code": 1}, False)
    assert {span["parentSpanId"] for span in (queue, generation, cut)} == {root["spanId"]}
    assert {span["traceId"] for span in (root, queue, generation, cut)} == {root["traceId"]}
    assert len({span["spanId"] for span in (root, queue, generation, cut)}) == 4
    assert (len(root["traceId"]), len(root["spanId"])) == (32, 16)
    assert lasts(root, queue) == pytest.approx(0.25)
    assert lasts(generation, generation, "endTimeUnixNano") == pytest.approx(1.0)
    assert cut["endTimeUnixNano"] == root["endTimeUnixNano"], "it was under way"
    assert generation["events"] == [{"name": "first token", "timeUnixNano": str(round((at + 0.6) * 1e9))}]
    assert known(generation)["gen_ai.usage.output_tokens"] == {"intValue": "20"}
    assert known(generation)["pie.finish"] == {"stringValue": "stop"}
    assert known(root)["pie.generations_left_out"] == {"intValue": "3"}


def lasts(first: dict, last: dict, end: str = "endTimeUnixNano") -> float:
    return (int(last[end]) - int(first["startTimeUnixNano"])) / 1e9


def known(span: dict) -> dict:
    return {each["key"]: each["value"] for each in span["attributes"]}


def test_the_documentation_names_every_span_and_attribute():
    process = ended()
    told = Generations(process.pid, [Generation("MODEL", process.record.created)], num_left_out=1)
    root, *children = spans_of(process, None, told)
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")
    wanted = {child["name"] for child in children} | {key for span in (root, *children) for key in known(span)}
    assert not {name for name in wanted if f"`{name}`" not in page}


def test_a_process_that_failed_or_never_began():
    root, queue = spans_of(ended(outcome="cancelled"), None, None)
    assert root["status"] == {"code": 2, "message": "cancelled"}
    assert queue["endTimeUnixNano"] == root["endTimeUnixNano"]


async def test_traces_arrive_at_the_collector():
    async with Collector() as collector, running(collector.port) as telemetry:
        process = ended()
        telemetry.started(process, process.record.created)
        telemetry.tell(Generations(process.pid, [Generation("tiny", process.record.created)]))
        telemetry.ended(process)
        telemetry.ended(ended(2))
        await collector.until(1)
    path, body = collector.got[0]
    assert path == "/v1/traces"
    [resource] = body["resourceSpans"]
    assert known(resource["resource"])["service.name"] == {"stringValue": "pie"}
    assert len(resource["scopeSpans"][0]["spans"]) == 3 + 2


async def test_a_collector_that_refuses_or_is_away_loses_traces_and_nothing_else(caplog: pytest.LogCaptureFixture):
    async with Collector() as collector, running(collector.port) as telemetry:
        collector.status = 503
        for number in (1, 2, 3):
            telemetry.ended(ended(number))
            await collector.until(number)
        collector.status = 200
        telemetry.ended(ended(4))
        await collector.until(4)
        await asyncio.sleep(0.05)
    assert sum("takes traces again" in each.getMessage() for each in caplog.records) == 1
    assert sum("are lost" in each.getMessage() for each in caplog.records) == 1, "said once"
    async with running(collector.port) as telemetry:  # nobody is there any more
        for number in range(MAX_WAITING + 10):
            telemetry.ended(ended(number))
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://host", "http://", "no", "http://[::1"])
def test_what_is_no_address_is_refused(endpoint):
    with pytest.raises(InvalidConfig, match="`otlp_endpoint` under"):
        Telemetry(endpoint)


def test_generations_of_a_process_are_bounded():
    now = [5.0]
    log = GenerationLog("p", lambda: now[0])
    first = log.begin("tiny")
    now[0] = 6.0
    first.first_token()
    now[0] = 7.0
    first.first_token()
    first.end("stop", Usage(3, 0, 2))
    for _ in range(MAX_GATHERED):
        log.begin("tiny").end("stop", Usage())
    told = log.told()
    assert told.generations[0] == Generation("tiny", 5.0, 6.0, 7.0, "stop", Usage(3, 0, 2))
    assert (len(told.generations), told.num_left_out) == (MAX_GATHERED, 1)
