"""What `pie stats` shows."""

from __future__ import annotations

import msgspec
import pytest

from pie_cli.statistics import statistics_lines
from pie_engine.protocol.stats import Batches, Histogram, HostState, ModelState, Pages, Requests, Snapshot

MODEL = ModelState(
    name="tiny",
    boot="c1",
    ready=True,
    device="cpu",
    cpu_s=10.0,
    rss_bytes=50 << 20,
    batches=Batches(num_steps=100, num_prefill_tokens=900, num_decode_tokens=400, num_sequences=450, step_s=1.2),
    pages=Pages(num_pages=64, num_free=60, num_hits=3, num_misses=1),
)
NOW = Snapshot(
    at=100.0,
    boot="g",
    uptime_s=75.0,
    pie="0.1.0",
    models=(MODEL,),
    hosts=(HostState("host-0", "h1", num_running=2, cpu_s=3.5, rss_bytes=20 << 20),),
    requests=Requests(
        num_running=2,
        num_returned=5,
        num_failed=1,
        errors={"cancelled": 1},
        ttft_s=Histogram((0.1, 1.0), (2, 2, 0), 1.5),
    ),
    incidents=("core tiny has died",),
)


def words(lines: list[str], start: str) -> list[str]:
    return next(line for line in lines if line.startswith(start)).split()


def test_sums_since_the_start():
    lines = statistics_lines(NOW)
    assert lines[0] == "pie 0.1.0, up 1m15s: 2 running, 0 queued, 5 returned, 1 failed (1 cancelled)"
    expected = ["tiny", "cpu", "100", "900", "400", "0", "4.5", "12ms", "0.0ms", "4", "of", "64", "75%", "0"]
    assert words(lines, "tiny") == expected
    assert words(lines, "host-0") == ["host-0", "2", "3.5s", "20", "MiB", "-"]
    assert words(lines, "first") == ["first", "token", "4", "100ms", "820ms", "982ms"]
    assert lines[-1] == "core tiny has died"


def test_rates_since_the_snapshot_before():
    later = msgspec.structs.replace(
        NOW,
        at=102.0,
        models=(
            msgspec.structs.replace(
                MODEL, cpu_s=11.0, batches=msgspec.structs.replace(MODEL.batches, num_steps=120, num_decode_tokens=500)
            ),
        ),
    )
    lines = statistics_lines(later, NOW)
    assert words(lines, "tiny")[2:5] == ["10/s", "0/s", "50/s"]
    assert "50%" in next(line for line in reversed(lines) if line.startswith("tiny"))
    assert words(lines, "first") == ["first", "token", "0", "-", "-", "-"]
    restarted = msgspec.structs.replace(later, models=(msgspec.structs.replace(MODEL, boot="c2"),))
    assert words(statistics_lines(restarted, NOW), "tiny")[2] == "100", "another core has counted from nothing"


def test_a_model_that_starts():
    starting = msgspec.structs.replace(NOW, models=(ModelState("tiny", "", False),), hosts=())
    assert words(statistics_lines(starting), "tiny")[:3] == ["tiny", "starting", "-"]


@pytest.mark.parametrize(("part", "value"), [(0.0, 0.0), (0.5, 0.1), (0.75, 0.55), (1.0, 1.0)])
def test_quantiles(part, value):
    assert Histogram((0.1, 1.0), (2, 2, 0)).quantile(part) == pytest.approx(value)


def test_quantiles_at_the_ends():
    assert Histogram((0.1, 1.0), (0, 0, 3)).quantile(0.5) == 1.0
    assert Histogram((0.1,), (0, 0)).quantile(0.5) is None
