"""A snapshot of the engine as lines of text; with an earlier one, rates instead of sums."""

from __future__ import annotations

from pie_cli import console
from pie_cli.commands.ps import age
from pie_engine.protocol.credits import shown
from pie_engine.protocol.stats import Histogram, HostState, ModelState, Requests, Snapshot

MIB = 1024 * 1024
MODELS = ("MODEL", "DEVICE", "STEPS", "PREFILL", "DECODE", "DRAFT", "ROWS", "STEP", "GAP", "PAGES", "HITS", "PRICE")
HOSTS = ("PROCESS", "RUNNING", "CPU", "MEMORY", "DEVICE USE")
LATENCIES = ("LATENCY", "COUNT", "P50", "P90", "P99")


def statistics_lines(now: Snapshot, before: Snapshot | None = None) -> list[str]:
    """`before`: rates are of the time since then; None: sums are of all time."""
    seconds = None if before is None or now.at <= before.at else now.at - before.at
    rows = [_model_row(model, _same(model, before), seconds) for model in now.models]
    cores = [_core_row(core, before, seconds) for core in now.models]
    processes = [*cores, *(_host_row(host, before, seconds) for host in now.hosts)]
    return [
        f"pie {now.pie}, up {age(now.uptime_s)}: {_requests(now.requests)}",
        "",
        *console.table_lines(MODELS, rows, right=frozenset(range(2, len(MODELS)))),
        "",
        *console.table_lines(HOSTS, processes, right=frozenset({1, 2, 3, 4})),
        "",
        *console.table_lines(LATENCIES, _latencies(now, before), right=frozenset({1, 2, 3, 4})),
        *(["", *now.incidents] if now.incidents else []),
    ]


def _requests(requests: Requests) -> str:
    failed = ", ".join(f"{count} {code}" for code, count in sorted(requests.errors.items()))
    text = f"{requests.num_running} running, {requests.num_queued} queued, {requests.num_returned} returned, "
    return text + f"{requests.num_failed} failed" + (f" ({failed})" if failed else "")


def _same(model: ModelState, before: Snapshot | None) -> ModelState | None:
    """The same core earlier: one that was started again begins anew."""
    return next((each for each in before.models if each.boot == model.boot), None) if before else None


def _model_row(model: ModelState, before: ModelState | None, seconds: float | None) -> tuple[str, ...]:
    if not model.ready:
        return (model.name, "starting", *["-"] * (len(MODELS) - 2))
    done, pages = model.batches, model.pages
    old = (before or ModelState(model.name, model.boot, True)).batches

    def grown(now: int, then: int) -> str:
        return f"{(now - then) / seconds:.0f}/s" if seconds and before else str(now)

    num_steps = done.num_steps - old.num_steps
    found = pages.num_hits + pages.num_misses
    return (
        model.name,
        model.device or "-",
        grown(done.num_steps, old.num_steps),
        grown(done.num_prefill_tokens, old.num_prefill_tokens),
        grown(done.num_decode_tokens, old.num_decode_tokens),
        grown(done.num_draft_tokens, old.num_draft_tokens),
        f"{(done.num_sequences - old.num_sequences) / num_steps:.1f}" if num_steps else "-",
        _time((done.step_s - old.step_s) / num_steps) if num_steps else "-",
        _time((done.gap_s - old.gap_s) / num_steps) if num_steps else "-",
        f"{pages.num_pages - pages.num_free} of {pages.num_pages}",
        f"{pages.num_hits / found:.0%}" if found else "-",
        shown(model.market.price),
    )


def _core_row(core: ModelState, before: Snapshot | None, seconds: float | None) -> tuple[str, ...]:
    use = "-" if core.device_use is None else f"{core.device_use:.0%}"
    cpu = _cpu(core, _same(core, before), seconds)
    return (core.name, "-", cpu, f"{core.rss_bytes / MIB:.0f} MiB", use)


def _host_row(host: HostState, before: Snapshot | None, seconds: float | None) -> tuple[str, ...]:
    old = next((each for each in before.hosts if each.boot == host.boot), None) if before else None
    return (host.name, str(host.num_running), _cpu(host, old, seconds), f"{host.rss_bytes / MIB:.0f} MiB", "-")


def _cpu(now: ModelState | HostState, before: ModelState | HostState | None, seconds: float | None) -> str:
    """Seconds of processor time; or the share of one processor since `before`."""
    return f"{(now.cpu_s - before.cpu_s) / seconds:.0%}" if seconds and before else f"{now.cpu_s:.1f}s"


def _latencies(now: Snapshot, before: Snapshot | None) -> list[tuple[str, ...]]:
    names = {"first token": "ttft_s", "next token": "tpot_s", "queue": "queue_s"}
    rows = []
    for name, field in names.items():
        histogram: Histogram | None = getattr(now.requests, field)
        if histogram is not None:
            recent = histogram.since(getattr(before.requests, field) if before else None)
            times = [recent.quantile(part) for part in (0.5, 0.9, 0.99)]
            rows.append((name, str(sum(recent.counts)), *("-" if time is None else _time(time) for time in times)))
    return rows


def _time(seconds: float) -> str:
    """`0.4ms`, `12ms`, `1.2s`."""
    if seconds >= 1:
        return f"{seconds:.1f}s"
    return f"{seconds * 1000:.1f}ms" if seconds < 0.01 else f"{seconds * 1000:.0f}ms"
