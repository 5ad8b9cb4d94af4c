"""What clients get: tokens and launches a second, latencies, cache hits, errors."""

from __future__ import annotations

from pie_cli.monitor import format
from pie_cli.monitor.panels.look import Look, heading, labelled
from pie_cli.monitor.series import History, chart
from pie_cli.monitor.text import Line, cut_line, fit, flowing, line
from pie_cli.monitor.view import Percentiles, View

LABEL_WIDTH = 11


def lines(view: View, width: int, height: int, look: Look) -> list[Line]:
    drawn = [heading("Throughput", width, f"{look.span} (z)"), *_rates(view, width), *_latencies(view, width)]
    drawn += _errors(view, width)
    charts = (
        ("tokens/s", view.history.tokens_s),
        ("launches/s", view.history.launches_s),
        ("TTFT ms", view.history.ttft_ms),
        ("TPOT ms", view.history.tpot_ms),
    )
    rows = min((height - len(drawn)) // len(charts), 8)
    for label, history in charts:
        drawn += _chart(label, history, width, rows, look)
    return drawn[:height]


def _rates(view: View, width: int) -> list[Line]:
    service = view.service
    decoded = sum(model.rates.decode * model.rates.steps_s for model in view.models)
    prefilled = sum(model.rates.prefill * model.rates.steps_s for model in view.models)
    rates = (
        labelled("generated", f"{format.rate(decoded)} tok/s"),
        labelled("prefilled", f"{format.rate(prefilled)} tok/s"),
        labelled("launches", f"{format.rate(service.launches_s)}/s"),
        labelled("returns", f"{format.rate(service.returns_s)}/s"),
        labelled("failures", f"{format.rate(service.failures_s)}/s", "bad" if service.failures_s else "bold"),
    )
    hits = "  ".join(f"{model.now.name} {format.percent(model.hit_rate)}" for model in view.models)
    return [*flowing(rates, width), cut_line(labelled("prefix cache hits", hits or format.NOTHING), width)]


def _latencies(view: View, width: int) -> list[Line]:
    service = view.service
    head = f"{'LAST MINUTES':<26}{'P50':>9}{'P90':>9}{'P99':>9}"
    names = (
        ("TTFT, arrival to token", service.ttft),
        ("TPOT, token to token", service.tpot),
        ("QUEUE, launch to start", service.queue),
    )
    return [line((fit(head, min(width, len(head))), "title")), *(_latency(name, each, width) for name, each in names)]


def _latency(name: str, values: Percentiles | None, width: int) -> Line:
    each = (values.p50, values.p90, values.p99) if values else (None, None, None)
    numbers = "".join(f"{format.milliseconds(value):>9}" for value in each)
    return cut_line(line((f"{name:<26}", "dim"), (numbers, "bold")), width)


def _errors(view: View, width: int) -> list[Line]:
    errors = sorted(view.service.now.errors.items(), key=lambda item: -item[1])
    if not errors:
        return [line(("errors ", "dim"), "none")]
    texts = [f"{code} {number:,}" for code, number in errors]
    new = sum(view.service.new_errors.values())
    return [cut_line(line(("errors ", "dim"), (", ".join(texts), "bad"), (f"  ({new:,} lately)", "dim")), width)]


def _chart(label: str, history: History, width: int, height: int, look: Look) -> list[Line]:
    if height < 1:
        return []
    points = history.levels[look.zoom].points()
    room = width - LABEL_WIDTH
    peak = max((point for point in points[-room:] if point == point), default=0.0)
    labels = [label, f"≤ {format.count(peak)}" if peak >= 10 else f"≤ {peak:.2g}"]
    return [
        line(((labels[i] if i < len(labels) else "").ljust(LABEL_WIDTH), "dim"), (row, "decode"))
        for i, row in enumerate(chart(points, room, height))
    ]
