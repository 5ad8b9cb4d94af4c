"""The benches' workloads through a real daemon: exact counts, each with its own program."""

from __future__ import annotations

from dataclasses import replace

import pytest
from common import figures_of_round, require_exact_counts
from whole_pie import WholePie
from workloads import NAMED


@pytest.mark.parametrize("name", NAMED)
def test_every_workload_runs_through_the_daemon(daemon_home, name):
    workload = replace(NAMED[name], num_requests=min(4, NAMED[name].num_requests), output_len=20)
    if workload.late_input_len:
        workload = replace(workload, late_input_len=600, output_len=60)
    waves = WholePie(daemon_home, "plan").run(workload, in_waves=False)
    require_exact_counts(waves, workload)
    figures = figures_of_round(waves, workload)
    assert figures["num_output_tokens"] == workload.num_streams * workload.output_len
    if workload.late_input_len:
        assert figures["worst_gap_ms"] > 0
        assert figures["late_ttft_ms"] > 0


def test_the_pass_tier_counts_the_same(daemon_home):
    workload = replace(NAMED["batch"], num_requests=2, output_len=8)
    require_exact_counts(WholePie(daemon_home, "pass").run(workload, in_waves=True), workload)
