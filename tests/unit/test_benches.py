"""The shared parts of the benches: workloads, figures, gaps, the ratio table, and the stream of an OpenAI server."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[2] / "benches"))

from bandwidth import floor_of, weight_bytes
from common import (
    BenchError,
    Stamps,
    figures_of_round,
    median_within,
    percentile,
    require_exact_counts,
    require_room,
    waves_of,
    worst_gap_s,
)
from compare import INTERRUPTED, Comparison, installed
from llamacpp_bench import LlamaCpp
from load import run_workload
from openai_stream import CompletionClient, SseParser, TokenCounts
from options import add_options, workloads_of
from peer import main as peer_main
from report import print_rounds, write_json
from sglang_bench import Sglang
from table import METRICS, floor_lines, markdown_table
from workloads import NAMED, Request, Workload

VOCAB = 4096


def stamps(sent: float, *arrivals: tuple[float, int]) -> Stamps:
    return Stamps(sent, list(arrivals))


# Workloads.


def test_prompts_are_reproducible_and_differ_from_one_another_and_from_round_to_round():
    workload = NAMED["batch"]
    prompts = [request.prompt for request in workload.requests(VOCAB)]
    assert prompts == [request.prompt for request in workload.requests(VOCAB)]
    assert len({tuple(prompt) for prompt in prompts}) == 64
    assert {len(prompt) for prompt in prompts} == {128}
    assert all(0 <= token < VOCAB for token in prompts[0])
    assert workload.in_round(1).requests(VOCAB)[0].prompt != prompts[0]


def test_a_shared_prefix_is_the_same_in_a_round_and_fresh_in_the_next():
    workload = NAMED["prefix"]
    first, second = (request.prompt for request in workload.requests(VOCAB)[:2])
    assert (len(first), first[:1024]) == (1056, second[:1024])
    assert first[1024:] != second[1024:]
    assert workload.in_round(1).requests(VOCAB)[0].prompt[:1024] != first[:1024]


def test_the_named_workloads_have_the_sizes_that_are_compared():
    sizes = {
        name: (each.num_requests, each.concurrency, each.prefix_len + each.input_len, each.output_len)
        for name, each in NAMED.items()
    }
    assert sizes == {
        "single": (5, 1, 128, 128),
        "batch": (64, 16, 128, 64),
        "prefix": (32, 16, 1056, 32),
        "fork": (1, 1, 512, 32),
        "interference": (8, 8, 128, 256),
    }
    assert NAMED["fork"].num_streams == 8
    assert len(NAMED["interference"].late_request(VOCAB).prompt) == 2048
    assert [name for name, each in NAMED.items() if each.is_single_stream] == ["single"]


def test_a_warm_up_shares_no_prompt_with_what_is_measured():
    for workload in NAMED.values():
        measured = {tuple(request.prompt) for request in workload.requests(VOCAB)}
        assert measured.isdisjoint(tuple(request.prompt) for request in workload.warm_up().requests(VOCAB))


def test_a_size_that_is_given_goes_before_the_named_workload():
    parser = argparse.ArgumentParser()
    add_options(parser)
    (batch,) = workloads_of(parser.parse_args(["tput", "--workload", "batch", "--num-requests", "3"]))
    assert batch == replace(NAMED["batch"], num_requests=3)
    assert workloads_of(parser.parse_args(["tput", "--workload", "all"])) == list(NAMED.values())
    (custom,) = workloads_of(parser.parse_args(["latency"]))
    assert (custom.name, custom.num_requests, custom.input_len, custom.output_len) == ("custom", 16, 64, 128)


def test_waves_are_cut_or_are_one():
    assert waves_of([1, 2, 3], 2, in_waves=True) == [[1, 2], [3]]
    assert waves_of([1, 2, 3], 2, in_waves=False) == [[1, 2, 3]]


# Figures.


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_a_sample_that_enough_of_the_others_do_not_exceed(samples, percent):
    value = percentile(samples, percent)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= math.floor(len(samples) * percent / 100)


def test_the_median_of_a_percentile_is_the_lower_middle():
    assert [percentile([4, 1, 3, 2], percent) for percent in (50, 99, 100)] == [2, 4, 4]


@pytest.mark.parametrize(("count", "before"), [(1, 0), (5, 0), (9, 0), (15, 2), (41, 13), (100, 39)])
def test_a_median_lies_within_samples_that_nearly_always_hold_the_true_one(count, before):
    low, middle, high = median_within([*range(count)][::-1])
    assert (low, middle, high) == (before, (count - 1) / 2, count - 1 - before)
    outside = 2 * sum(math.comb(count, below) for below in range(before + 1)) / 2**count
    assert outside < 0.05 or count < 6


def test_the_worst_gap_counts_waits_that_overlap_the_window():
    before = stamps(0, (1, 1), (5, 1), (6, 1))  # waited 4, but before the window
    across = stamps(0, (6, 1), (9, 1), (10, 1))  # waited 3, into it
    after = stamps(0, (12, 1), (20, 1))
    assert worst_gap_s([before, across, after], 7, 11) == 3
    assert worst_gap_s([stamps(0, (2, 1), (4, 1))], 2.5, 3.5) == 2, "the window lies inside the gap"
    assert math.isnan(worst_gap_s([after], 0, 1))


def test_interference_tells_the_worst_gap_before_and_after_the_late_prompt():
    workload = Workload(2, 2, 4, 4, late_input_len=8, late_output_len=1)
    first = stamps(0, (1, 1), (1.25, 1), (3.25, 1), (3.5, 1))
    second = stamps(0, (1, 1), (1.5, 1), (2.5, 1), (3.5, 1))
    late = stamps(1.75, (3.0, 1))
    round_ = figures_of_round([[first, second], [late]], workload)
    assert (round_["worst_gap_ms"], round_["worst_gap_before_ms"]) == (2000, 500)
    assert (round_["late_ttft_ms"], round_["outlasted"]) == (1250, True)
    assert (round_["num_requests"], round_["num_output_tokens"]) == (2, 8), "the late one is not among the figures"
    ended = figures_of_round([[stamps(0, (1, 1), (1.25, 3))], [late]], replace(workload, num_requests=1))
    assert (ended["worst_gap_ms"], ended["outlasted"]) == (None, False)


def test_wrong_counts_are_refused_with_the_numbers():
    workload = Workload(1, 1, 4, 3, num_forks=2)
    require_exact_counts([[stamps(0, (1, 3)), stamps(0, (1, 2), (2, 1))]], workload)
    with pytest.raises(BenchError, match=r"1 of 2 continuations.*1 with a wrong number of tokens: \[2\]"):
        require_exact_counts([[stamps(0, (1, 2))]], workload)
    late = Workload(1, 1, 4, 3, late_input_len=8, late_output_len=2)
    with pytest.raises(BenchError, match=r"\[5\]"):
        require_exact_counts([[stamps(0, (1, 3))], [stamps(0, (1, 5))]], late)


def test_a_workload_that_the_model_has_no_room_for_is_refused_with_the_numbers():
    require_room(NAMED["interference"], 2064)
    with pytest.raises(BenchError, match="interference needs contexts of 2064 tokens, the model has 2048"):
        require_room(NAMED["interference"], 2048)
    with pytest.raises(BenchError, match="prefix needs contexts of 1088 tokens"):
        require_room(NAMED["prefix"], 1024)


# The table.


def rounds(metric_path: tuple[str, ...], *values: float) -> list[dict]:
    figures = []
    for value in values:
        inner: object = value
        for key in reversed(metric_path):
            inner = {key: inner}
        figures.append(inner)
    return figures


def test_a_ratio_above_one_means_that_pie_is_ahead_whatever_is_better():
    results = {
        "7m": {
            "pie": {"batch": rounds(("output_tokens_per_s",), 300, 100, 200), "single": rounds(("tpot_ms", "p50"), 2)},
            "vllm": {"batch": rounds(("output_tokens_per_s",), 100), "single": rounds(("tpot_ms", "p50"), 3)},
            "hf": {},
        }
    }
    lines = markdown_table(results, ["pie", "vllm", "hf"]).splitlines()
    assert lines[0] == "| shape | workload | Pie | vllm | Pie is ahead | hf | Pie is ahead |"
    assert lines[2:] == [
        "| 7m | single stream: TPOT, ms | 2.00 | 3.00 | 1.50× | – | – |",
        "| 7m | 64 requests, 16 at a time: tokens/s | 200 (100–300) | 100 | 2.00× | – | – |",
    ]


def test_the_floor_stands_beside_the_time_per_token():
    floors = {"7m": {"tpot_ms": 2.0, "weight_bytes": 20_000_000, "bytes_per_s": 10_000_000_000}}
    results = {"7m": {"pie": {"single": rounds(("tpot_ms", "p50"), 2, 3, 9)}}}
    told = "7m: memory-bandwidth floor 2.00 ms per token (20 MB of weights at 10.0 GB/s)"
    assert floor_lines(floors, results) == [f"{told}; Pie's TPOT is 1.50× that"]
    assert floor_lines(floors, {}) == [told]


def test_every_named_workload_is_in_the_table():
    assert {metric.workload for metric in METRICS} == set(NAMED)


# Results.


def test_a_report_has_the_floor_beside_tpot_and_the_worst_gap(capsys):
    workload = Workload(1, 1, 4, 3, name="interference", late_input_len=8, late_output_len=1)
    waves = [[stamps(0, (1, 1), (2, 1), (4, 1))], [stamps(2.5, (5, 1))]]
    floor = {"tpot_ms": 1000.0, "weight_bytes": 20_000_000, "bytes_per_s": 20_000_000, "num_threads": 2}
    runs = {"pie": [figures_of_round(waves, workload)]}
    print_rounds({"workload": {"name": workload.name}, "runs": runs, "floor": floor})
    assert capsys.readouterr().out.splitlines()[2:] == [
        "worst gap of the decoders 2000.0 ms (1000.0 before), first token of the late one 2500 ms",
        "some decoders ended before the late one had its first token: raise --output-len",
        "floor 1000.00 ms = 20 MB of weights / 0.0 GB/s (2 threads): TPOT is 1.50×",
    ]


def test_one_result_is_an_object_and_several_are_a_list(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, [{"a": 1}])
    assert json.loads(path.read_text()) == {"a": 1}
    write_json(path, [{"a": 1}, {"a": 2}])
    assert json.loads(path.read_text()) == [{"a": 1}, {"a": 2}]


# All engines.


def comparison(engines: list[str]) -> Comparison:
    return Comparison(argparse.Namespace(shapes=["7m"], rounds=2, note=""), engines)


def test_a_comparison_keeps_every_round_and_what_each_engine_was():
    compared = comparison(["pie", "hf"])
    for tpot_ms in (2, 4):
        result = {
            "workload": {"name": "single"},
            "engine": {"name": "pie"},
            "model": {"name": "7m", "dtype": "bfloat16", "num_threads": 2, "device": "cpu", "num_pages": 3},
            "runs": {"pie": rounds(("tpot_ms", "p50"), tpot_ms)},
            "floor": {"tpot_ms": 1.5, "weight_bytes": 1, "bytes_per_s": 1},
        }
        compared.add("7m", "pie", [result])
    compared.failures.append("hf on 7m, round 1: exit status 1")
    assert "| 7m | single stream: TPOT, ms | 3.00 (2.00–4.00) | – | – |" in compared.report()
    assert compared.report().endswith("FAILED hf on 7m, round 1: exit status 1")
    told = json.loads(json.dumps(compared.as_json()))
    assert told["engines"]["pie"]["model"] == {"dtype": "bfloat16", "num_threads": 2, "device": "cpu"}
    assert len(told["results"]["7m"]["pie"]["single"]) == 2


def kept_of(name: str = "pie") -> dict:
    compared = comparison([name])
    compared.figures["7m"][name]["single"] = [{"tpot_ms": 1}]
    compared.failures.append(INTERRUPTED)
    return json.loads(json.dumps(compared.as_json()))


def test_a_comparison_goes_on_from_an_earlier_result():
    compared = comparison(["pie", "hf"])
    compared.resume(kept_of())
    assert compared.has("7m", "pie", 0)
    assert not compared.has("7m", "pie", 1)
    assert not compared.has("7m", "hf", 0)
    assert compared.failures == []


def test_it_goes_on_only_with_what_was_asked_for_and_on_the_same_machine():
    with pytest.raises(BenchError, match="has hf on 7m, which are not asked for"):
        comparison(["pie"]).resume(kept_of("hf"))
    elsewhere = kept_of()
    elsewhere["machine"]["cpu"] = "a 6502"
    with pytest.raises(BenchError, match="another machine: a 6502"):
        comparison(["pie"]).resume(elsewhere)


def test_engines_that_are_not_set_up_are_named_and_left_out(tmp_path, capsys):
    assert installed(["pie", "vllm", "llamacpp", "sglang"], tmp_path) == ["pie"]
    told = capsys.readouterr().err
    assert [line.split(":")[0] for line in told.splitlines()] == ["without vllm", "without llamacpp", "without sglang"]


def test_sglang_says_that_it_needs_a_gpu(tmp_path):
    python = tmp_path / "sglang/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 0.5.9 False 2.13.0\n")
    python.chmod(0o755)
    assert Sglang().missing(tmp_path) == "sglang needs a GPU, and torch sees none on this machine"
    python.write_text("#!/bin/sh\necho 'ImportError: no libcuda' >&2; exit 1\n")
    assert Sglang().missing(tmp_path) == "sglang does not import: ImportError: no libcuda"
    python.write_text("#!/bin/sh\necho 0.5.9 True 2.13.0\n")
    assert Sglang().missing(tmp_path) == ""


def test_a_peer_that_is_not_set_up_says_where_to_read_how(tmp_path):
    with pytest.raises(SystemExit, match=r"not there\nhint: benches/README.md says how to set llamacpp up"):
        peer_main(LlamaCpp(), arguments=["tput", "--peers", str(tmp_path)])


# Streams of OpenAI servers.


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


# The floor.


def write_safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps({**header, "__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


def test_weights_are_counted_without_an_embedding_that_only_gives_a_row(tmp_path):
    shapes = {"model.embed_tokens.weight": [100, 4], "model.norm.weight": [4]}
    write_safetensors(tmp_path / "model.safetensors", shapes)
    assert weight_bytes(tmp_path, "auto") == 2 * 404, "tied: the embedding is the output as well"
    assert weight_bytes(tmp_path, "float32") == 4 * 404
    write_safetensors(tmp_path / "model-2.safetensors", {"lm_head.weight": [100, 4]})
    assert weight_bytes(tmp_path, "bfloat16") == 2 * 404
    assert weight_bytes(tmp_path / "model.gguf", "auto") == 0
    assert floor_of(tmp_path / "model.gguf", "auto", 1) is None
