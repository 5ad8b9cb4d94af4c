"""A snapshot as metrics for Prometheus. What there is, is the table `METRICS`; docs/metrics.md comes from it.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for what only grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.stats import Histogram, HostState, ModelState, Snapshot

Kind = Literal["counter", "gauge", "histogram"]
Samples = Iterable[tuple[tuple[str, ...], float | Histogram]]
"""Values of the labels, and the value."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Snapshot], Samples]


def _whole(name: str, kind: Kind, help: str, value: Callable[[Snapshot], float | Histogram | None]) -> Measure:
    def samples(snapshot: Snapshot) -> Samples:
        found = value(snapshot)
        return [] if found is None else [((), found)]

    return Measure(name, kind, help, (), samples)


def _model(name: str, kind: Kind, help: str, value: Callable[[ModelState], float | None]) -> Measure:
    def samples(snapshot: Snapshot) -> Samples:
        found = ((model.name, value(model)) for model in snapshot.models)
        return [((name,), value) for name, value in found if value is not None]

    return Measure(name, kind, help, ("model",), samples)


def _model_by(
    name: str, kind: Kind, help: str, label: str, values: Callable[[ModelState], dict[str, float]]
) -> Measure:
    def samples(snapshot: Snapshot) -> Samples:
        return [((model.name, key), value) for model in snapshot.models for key, value in values(model).items()]

    return Measure(name, kind, help, ("model", label), samples)


def _host(name: str, kind: Kind, help: str, value: Callable[[HostState], float]) -> Measure:
    return Measure(
        name, kind, help, ("host",), lambda snapshot: [((host.name,), value(host)) for host in snapshot.hosts]
    )


def _tokens(model: ModelState) -> dict[str, float]:
    done = model.batches
    return {"prefill": done.num_prefill_tokens, "decode": done.num_decode_tokens, "draft": done.num_draft_tokens}


def _pages(model: ModelState) -> dict[str, float]:
    pages = model.pages
    free = pages.num_free - pages.num_cached
    return {"used": pages.num_pages - pages.num_free, "cached": pages.num_cached, "free": free}


def _host_pages(model: ModelState) -> dict[str, float]:
    pages = model.pages
    return {"used": pages.num_used_host, "free": pages.num_host - pages.num_used_host}


def _states(snapshot: Snapshot) -> Samples:
    found = Counter((program.model, program.state) for program in snapshot.programs)
    return [(labels, count) for labels, count in sorted(found.items())]


def _ended(snapshot: Snapshot) -> Samples:
    requests = snapshot.requests
    return [
        (("return",), requests.num_returned),
        *(((code,), count) for code, count in sorted(requests.errors.items())),
    ]


METRICS: tuple[Measure, ...] = (
    Measure("pie_info", "gauge", "Always 1; the version is a label", ("version",), lambda now: [((now.pie,), 1)]),
    _whole("pie_uptime_seconds", "gauge", "Since the daemon began", lambda now: now.uptime_s),
    _whole("pie_launches_total", "counter", "Processes launched", lambda now: now.requests.num_launched),
    Measure(
        "pie_processes_ended_total",
        "counter",
        "Processes that have ended; `outcome` is `return` or the code of the error",
        ("outcome",),
        _ended,
    ),
    _whole("pie_processes_queued", "gauge", "Processes that wait for a host", lambda now: now.requests.num_queued),
    _whole("pie_processes_running", "gauge", "Processes that hosts have", lambda now: now.requests.num_running),
    Measure(
        "pie_programs",
        "gauge",
        "Processes by what they do or wait for; without a model: those that have used none yet",
        ("model", "state"),
        _states,
    ),
    _whole(
        "pie_time_to_first_token_seconds",
        "histogram",
        "From the arrival of a generation in a core to its first token",
        lambda now: now.requests.ttft_s,
    ),
    _whole(
        "pie_time_per_output_token_seconds",
        "histogram",
        "Between two tokens of a generation, over its whole length",
        lambda now: now.requests.tpot_s,
    ),
    _whole("pie_queue_seconds", "histogram", "From a launch to its start", lambda now: now.requests.queue_s),
    _model("pie_model_ready", "gauge", "1: programs can use it", lambda model: float(model.ready)),
    _model("pie_steps_total", "counter", "Batches that ran", lambda model: model.batches.num_steps),
    _model_by("pie_tokens_total", "counter", "Tokens that ran, by kind", "kind", _tokens),
    _model("pie_sequences_total", "counter", "Rows of all batches", lambda model: model.batches.num_sequences),
    _model("pie_batch_max_tokens", "gauge", "Most tokens of a batch", lambda model: model.batches.max_tokens),
    _model("pie_batch_max_sequences", "gauge", "Most rows of a batch", lambda model: model.batches.max_sequences),
    _model("pie_step_seconds_total", "counter", "In the driver", lambda model: model.batches.step_s),
    _model(
        "pie_gap_seconds_total",
        "counter",
        "Between two batches while something could run",
        lambda model: model.batches.gap_s,
    ),
    _model_by("pie_kv_pages", "gauge", "KV pages on the device, by state", "state", _pages),
    _model("pie_kv_page_tokens", "gauge", "Tokens of a KV page", lambda model: model.pages.page_size),
    _model_by("pie_kv_host_pages", "gauge", "Places for KV pages in host memory, by state", "state", _host_pages),
    _model(
        "pie_kv_page_hits_total",
        "counter",
        "Pages of prompts that were found instead of computed when they ran first",
        lambda model: model.pages.num_hits,
    ),
    _model(
        "pie_kv_page_misses_total",
        "counter",
        "Pages of prompts that were computed when they ran first",
        lambda model: model.pages.num_misses,
    ),
    _model(
        "pie_kv_page_returns_total",
        "counter",
        "Pages that came back from host memory",
        lambda model: model.pages.num_returns,
    ),
    _model(
        "pie_preemptions_total",
        "counter",
        "Times that a context with work to do has lost its pages",
        lambda model: model.pages.num_preemptions,
    ),
    _model(
        "pie_market_price_credits",
        "gauge",
        "For a page and a step: the highest bid that did not fit; 0: everything fits",
        lambda model: model.market.price / CREDIT,
    ),
    _model("pie_market_rent_credits_total", "counter", "Rent paid", lambda model: model.market.rent / CREDIT),
    _model("pie_market_pages_made_total", "counter", "Pages made, at one credit each", lambda model: model.market.made),
    _model(
        "pie_market_moved_out_total",
        "counter",
        "Contexts that lost their pages to others",
        lambda model: model.market.num_moved_out,
    ),
    _model("pie_core_cpu_seconds_total", "counter", "Processor time of the core", lambda model: model.cpu_s),
    _model("pie_core_resident_memory_bytes", "gauge", "Memory of the core", lambda model: model.rss_bytes),
    _model("pie_device_utilization_ratio", "gauge", "0 to 1, where NVML says it", lambda model: model.device_use),
    _model(
        "pie_device_memory_bytes",
        "gauge",
        "Taken of the device, where NVML says it",
        lambda model: model.device_memory_bytes,
    ),
    _host("pie_host_processes", "gauge", "Programs that the host runs", lambda host: host.num_running),
    _host("pie_host_warm_guests", "gauge", "Guests that are ready for a launch", lambda host: host.num_warm),
    _host("pie_host_cpu_seconds_total", "counter", "Processor time of the host", lambda host: host.cpu_s),
    _host("pie_host_resident_memory_bytes", "gauge", "Memory of the host", lambda host: host.rss_bytes),
)


class _Once(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for measure in METRICS:
            yield _family(measure, self._snapshot)


def _family(measure: Measure, snapshot: Snapshot) -> Metric:
    if measure.kind == "histogram":
        family = HistogramMetricFamily(measure.name, measure.help, labels=measure.labels)
        for labels, value in measure.samples(snapshot):
            assert isinstance(value, Histogram)
            family.add_metric(labels, _buckets(value), value.sum)
        return family
    cls = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    simple = cls(measure.name, measure.help, labels=measure.labels)
    for labels, value in measure.samples(snapshot):
        assert not isinstance(value, Histogram)
        simple.add_metric(labels, value)
    return simple


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Each counts all values up to its bound."""
    buckets, so_far = [], 0
    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        so_far += count
        buckets.append((bound, float(so_far)))
    return buckets


def exposition(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The text, and its content type: OpenMetrics for who accepts that, else Prometheus' own."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(snapshot))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
