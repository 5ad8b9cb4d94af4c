"""What Prometheus gets, its page in the docs, and the dashboard that asks for it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pie_engine.gateway.metrics import METRICS, exposition
from pie_engine.protocol.stats import (
    Batches,
    Histogram,
    HostState,
    MarketState,
    ModelState,
    Pages,
    ProgramState,
    Requests,
    Snapshot,
)

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
LATENCIES = Histogram((0.1, 1.0), (3, 2, 1), 5.5)
SNAPSHOT = Snapshot(
    at=1.0,
    boot="g",
    uptime_s=12.5,
    pie="0.1.0",
    models=(
        ModelState(
            name='a "quoted"\nname',
            boot="c",
            ready=True,
            device_use=0.5,
            batches=Batches(num_steps=7, num_prefill_tokens=100, num_decode_tokens=50, num_draft_tokens=5, step_s=0.25),
            pages=Pages(page_size=16, num_pages=100, num_free=60, num_cached=20, num_host=10, num_used_host=4),
            market=MarketState(price=1_500_000, rent=2_000_000, made=9),
        ),
    ),
    hosts=(HostState("host-0", "h", num_running=2, cpu_s=1.5),),
    programs=(
        ProgramState("p1", "local", "a", "1", "waiting: pages", 0.0, model="m"),
        ProgramState("p2", "local", "a", "1", "waiting: pages", 0.0, model="m"),
        ProgramState("p3", "local", "a", "1", "queued", 0.0),
    ),
    requests=Requests(num_launched=3, num_returned=1, errors={"cancelled": 2}, ttft_s=LATENCIES, tpot_s=None),
)


def samples(snapshot: Snapshot = SNAPSHOT) -> dict[tuple[str, ...], float]:
    text, content_type = exposition(snapshot)
    assert content_type.startswith("text/plain; version=")
    families = list(text_string_to_metric_families(text.decode()))
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for each in families for sample in each.samples
    }


def test_values_are_in_base_units():
    found, model = samples(), 'a "quoted"\nname'
    assert found["pie_uptime_seconds",] == 12.5
    assert found["pie_tokens_total", model, "prefill"] == 100
    assert found["pie_kv_pages", model, "used"] == 40
    assert found["pie_kv_pages", model, "cached"] == 20
    assert found["pie_kv_pages", model, "free"] == 40
    assert found["pie_market_price_credits", model] == 1.5
    assert found["pie_market_rent_credits_total", model] == 2
    assert found["pie_device_utilization_ratio", model] == 0.5
    assert found["pie_programs", "m", "waiting: pages"] == 2
    assert found["pie_programs", "", "queued"] == 1
    assert found["pie_processes_ended_total", "cancelled"] == 2
    assert found["pie_host_cpu_seconds_total", "host-0"] == 1.5


def test_histograms_are_cumulative():
    found = samples()
    name = "pie_time_to_first_token_seconds"
    assert [found[f"{name}_bucket", bound] for bound in ("0.1", "1.0", "+Inf")] == [3, 5, 6]
    assert (found[f"{name}_sum",], found[f"{name}_count",]) == (5.5, 6)


def test_what_nobody_knows_is_left_out():
    model = msgspec.structs.replace(SNAPSHOT.models[0], device_use=None)
    found = samples(msgspec.structs.replace(SNAPSHOT, models=(model,)))
    assert not any(name.startswith(("pie_device_utilization", "pie_time_per")) for name, *_ in found)


def test_open_metrics_for_who_asks():
    text, content_type = exposition(SNAPSHOT, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


@pytest.mark.parametrize("measure", METRICS, ids=lambda measure: measure.name)
def test_names_follow_the_conventions(measure):
    assert re.fullmatch(r"pie_[a-z_]+", measure.name)
    assert measure.name.endswith("_total") == (measure.kind == "counter")
    assert not re.search(r"_(ms|us|milli|micro|mb|kb)(_|$)", measure.name)
    assert measure.help[0].isupper() or measure.help[0].isdigit()


def test_every_metric_that_the_dashboard_asks_for_is_there():
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    asked = {name for panel in dashboard["panels"] for target in panel["targets"] for name in names(target["expr"])}
    asked.update(names(dashboard["templating"]["list"][1]["query"]))
    there = {each.name + suffix for each in METRICS for suffix in SUFFIXES[each.kind]}
    assert asked <= there, asked - there
    never = {each.name for each in METRICS if not any(name.startswith(each.name) for name in asked)}
    assert never <= {
        "pie_info",
        "pie_kv_page_tokens",
        "pie_processes_running",
        "pie_host_processes",
        "pie_host_warm_guests",
    }
    labels = {each.name + suffix: {*each.labels, "le"} for each in METRICS for suffix in SUFFIXES[each.kind]}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            for name, label in asked_labels(target["expr"]):
                assert label in labels[name], (panel["title"], name, label)
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def names(expression: str) -> list[str]:
    return re.findall(r"pie_\w+", expression)


def asked_labels(expression: str) -> list[tuple[str, str]]:
    """By what an expression chooses a metric, or groups it."""
    chosen = re.findall(r"(pie_\w+)\{([^}]*)\}", expression)
    grouped = re.findall(r"by \((\w+)\) \((?:rate\()?(pie_\w+)", expression)
    return [
        *((name, label) for name, choice in chosen for label in re.findall(r"(\w+)\s*=", choice)),
        *((name, label) for label, name in grouped),
    ]
