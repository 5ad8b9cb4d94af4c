"""Workloads of the benches, figures of what they measure, and the floor."""

from __future__ import annotations

import argparse
import json
import math
import struct
from dataclasses import replace
from pathlib import Path

import pytest
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
from hypothesis import given
from hypothesis import strategies as st
from options import add_options, workloads_of
from workloads import NAMED, Workload

VOCAB = 4096


def stamps(sent: float, *arrivals: tuple[float, int]) -> Stamps:
    return Stamps(sent, list(arrivals))


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
