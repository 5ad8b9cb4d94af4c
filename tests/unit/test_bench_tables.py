"""What the benches report: one run, the table of ratios, and the comparison of all engines."""

from __future__ import annotations

import argparse
import json

import pytest
from common import BenchError, Stamps, figures_of_round
from compare import INTERRUPTED, Comparison, installed
from llamacpp_bench import LlamaCpp
from peer import main as peer_main
from report import print_rounds, write_json
from sglang_bench import Sglang
from table import METRICS, floor_lines, markdown_table
from workloads import NAMED, Workload


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


def test_a_report_has_the_floor_beside_tpot_and_the_worst_gap(capsys):
    workload = Workload(1, 1, 4, 3, name="interference", late_input_len=8, late_output_len=1)
    waves = [[Stamps(0, [(1, 1), (2, 1), (4, 1)])], [Stamps(2.5, [(5, 1)])]]
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
