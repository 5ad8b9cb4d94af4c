"""The stream of an OpenAI server, as the benches count its tokens."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from common import (
    BenchError,
    require_exact_counts,
)
from hypothesis import given
from hypothesis import strategies as st
from load import run_workload
from openai_stream import CompletionClient, SseParser, TokenCounts
from workloads import NAMED, Request

VOCAB = 4096


@given(st.data())
def test_events_come_out_whole_wherever_the_stream_is_cut(data):
    events = [b'{"a": 1}', b"[DONE]", "…".encode()]
    stream = b": a comment\r\n\r\n" + b"".join(b"data: " + event + b"\r\n\r\n" for event in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    parser = SseParser()
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [event for piece in pieces for event in parser.feed(piece)] == events


def test_data_of_several_lines_is_one_event():
    assert SseParser().feed(b"event: x\ndata: a\ndata:b\n\n") == [b"a\nb"]


def chunk(index: int, **account: object) -> dict:
    return {"choices": [{"index": index, "text": ""}], **account}


def test_tokens_are_counted_by_the_running_totals_of_vllm_and_of_llamacpp():
    request = Request([1, 2], 3, num_forks=2)
    vllm = TokenCounts(request)
    usage = [{"prompt_tokens": 2, "completion_tokens": number} for number in (1, 3, 3, 6)]
    assert vllm.add(chunk(0, usage=usage[0])) == [(0, 1)]
    assert vllm.add(chunk(1, usage=usage[1])) == [(1, 3)]
    assert vllm.add(chunk(0, usage=usage[2])) == [(0, 2)]
    assert vllm.add({"choices": [], "usage": usage[3]}) == []
    vllm.check()
    llamacpp = TokenCounts(replace(request, num_forks=1))
    assert llamacpp.add(chunk(0, timings={"predicted_n": 1})) == [(0, 1)]
    assert llamacpp.add(chunk(0, timings={"predicted_n": 3}, usage=usage[2])) == [(0, 2)]
    llamacpp.check()


def test_counts_that_do_not_agree_are_refused():
    request = Request([1, 2], 3)
    short = TokenCounts(request)
    short.add(chunk(0, timings={"predicted_n": 2}))
    with pytest.raises(BenchError, match=r"asked for \{0: 3\} tokens by continuation, got \{0: 2\}"):
        short.check()
    other = TokenCounts(request)
    other.add(chunk(0, timings={"predicted_n": 3}))
    other.add({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 4}})
    with pytest.raises(BenchError, match="3 tokens came, the usage says 4"):
        other.check()
    with pytest.raises(BenchError, match="sent 2 prompt tokens"):
        TokenCounts(request).add(chunk(0, usage={"prompt_tokens": 3, "completion_tokens": 1}))
    with pytest.raises(BenchError, match="without a count"):
        TokenCounts(request).add(chunk(0))
    with pytest.raises(BenchError, match="out of memory"):
        TokenCounts(request).add({"error": {"message": "out of memory"}})


class StandIn:
    """A server with an OpenAI completions route: counts on, token after token."""

    def __init__(self, *, closes: bool = False, breaks_off: bool = False) -> None:
        self.closes = closes
        """Each connection after one answer, without saying so."""
        self.breaks_off = breaks_off
        self.bodies: list[dict] = []
        self.num_connections = 0

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            self.bodies.append(body)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(1, body["max_tokens"] + 1):
                for index in range(body["n"]):
                    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": number}
                    self._send(writer, json.dumps(chunk(index, usage=usage)))
                await asyncio.sleep(0.001)
            if self.breaks_off:
                break
            self._send(writer, "[DONE]")
            writer.write(b"0\r\n\r\n")
            if self.closes:
                break
        writer.close()

    def _send(self, writer: asyncio.StreamWriter, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(line), line))


@pytest.mark.parametrize("name", NAMED)
async def test_every_workload_runs_against_a_server_of_completions(name):
    workload = replace(NAMED[name], output_len=12)
    stand_in = StandIn()
    async with stand_in as port:
        client = CompletionClient(port, "bench", {"top_k": 0})
        waves = await run_workload(client, workload, VOCAB, in_waves=False)
        client.close()
    require_exact_counts(waves, workload)
    assert stand_in.num_connections <= workload.concurrency + 1, "connections are used again"
    sent = [body["prompt"] for body in stand_in.bodies]
    assert sorted(sent[: workload.num_requests]) == sorted(request.prompt for request in workload.requests(VOCAB))
    assert stand_in.bodies[0]["ignore_eos"] is True
    assert {body["temperature"] for body in stand_in.bodies} == {workload.temperature}
    if workload.late_input_len:
        assert (len(sent[-1]), waves[-1][0].num_tokens) == (2048, 16)
        assert all(stamps.arrivals[7][0] <= waves[-1][0].sent for stamps in waves[0]), "sent while all were decoding"


async def test_a_server_that_closes_its_connections_is_asked_on_a_fresh_one():
    workload = replace(NAMED["single"], output_len=3)
    stand_in = StandIn(closes=True)
    async with stand_in as port:
        waves = await run_workload(CompletionClient(port, "bench", {}), workload, VOCAB, in_waves=False)
    require_exact_counts(waves, workload)
    assert stand_in.num_connections == 5


async def test_a_server_that_breaks_off_or_is_gone_is_told_from_one_that_is_slow():
    async with StandIn(breaks_off=True) as port:
        with pytest.raises(BenchError, match="broke off in the middle"):
            await run_workload(CompletionClient(port, "bench", {}), NAMED["batch"], VOCAB, in_waves=False)
    with pytest.raises(BenchError, match="does not answer"):
        await run_workload(CompletionClient(port, "bench", {}), NAMED["single"], VOCAB, in_waves=False)
