"""Above everything: the engine, each model with its device and KV pages, and what stands out."""

from __future__ import annotations

from pie_cli.monitor import format
from pie_cli.monitor.diagnosis import NO_FAILURES
from pie_cli.monitor.text import ELLIPSIS, Line, Span, bar, beside, cut, cut_line, line, width_of, wrap
from pie_cli.monitor.view import ModelView, View
from pie_engine.protocol.stats import ModelState

CONNECTED = "live"
BAR_WIDTH, MIN_BAR_WIDTH = 20, 8


def status_line(view: View | None, width: int, connection: str, *, is_frozen: bool) -> Line:
    """`connection`: `live`, or what is the matter with it."""
    state = [Span(" FROZEN ", "selected"), Span(" ")] if is_frozen else []
    is_live = connection == CONNECTED
    right = (
        *state,
        Span("● " if is_live else "○ ", "good" if is_live else "bad"),
        Span(connection, "" if is_live else "bad"),
    )
    if view is None:
        return beside(line(("Pie", "title")), right, width)
    snapshot, requests = view.snapshot, view.snapshot.requests
    num_failed = requests.num_failed - sum(requests.errors.get(code, 0) for code in NO_FAILURES)
    left = line(
        ("Pie", "title"),
        f" {snapshot.pie}",
        (f"  up {format.age(snapshot.uptime_s)}  ", "dim"),
        (f"{requests.num_running:,}", "bold"),
        " running",
        (f"  {requests.num_queued:,}", "bold"),
        " queued",
        (f"  {num_failed:,}", "bad" if num_failed else "bold"),
        " failed",
    )
    return beside(left, right, width)


def model_lines(view: View, width: int, room: int) -> list[Line]:
    """Two lines a model; one where there are more models than room, and the rest is counted."""
    models = view.models
    if not models:
        return [line(("no model is loaded", "dim"))]
    if 2 * len(models) <= room:
        return [each for model in models for each in (_device_line(model, width), _pages_line(model, width))]
    shown = [_short_line(model, width) for model in models[:room]]
    if len(models) > room:
        shown[-1] = line((f"and {len(models) - room + 1} more models", "dim"))
    return shown


def _device_line(model: ModelView, width: int) -> Line:
    now = model.now
    ready = ("●", "good") if now.ready else ("○ not ready", "bad")
    use = [] if now.device_use is None else [Span("  busy ", "dim"), Span(format.percent(now.device_use), "bold")]
    left = line(
        ready, (f" {now.name}", "bold"), f"  {device_text(now)}", (f"  up {format.age(now.uptime_s)}", "dim"), *use
    )
    right = line(("policy ", "dim"), now.market.policy, ("  price ", "dim"), (format.credits(now.market.price), "bold"))
    return beside(left, right, width)


def device_text(now: ModelState) -> str:
    """`cuda:0 · bfloat16`; with the driver where the device does not say it."""
    driver = "" if now.device.startswith(now.driver) else now.driver
    return " · ".join(part for part in (driver, now.device, now.dtype) if part)


def _pages_line(model: ModelView, width: int) -> Line:
    pages = model.now.pages
    host = f"  host memory {pages.num_used_host:,}/{pages.num_host:,}" if pages.num_host else ""
    numbers = line(
        (f" {model.num_used_pages:,}", "bold"),
        " used ",
        (f"{pages.num_cached:,}", "bold"),
        " cached ",
        (f"{pages.num_free - pages.num_cached:,}", "bold"),
        f" empty of {pages.num_pages:,} pages",
        (host, "dim"),
    )
    parts = [(float(model.num_used_pages), "█", "accent"), (float(pages.num_cached), "░", "accent")]
    bar_width = min(max(width - len("KV ") - width_of(numbers), MIN_BAR_WIDTH), BAR_WIDTH)
    return cut_line((Span("KV ", "dim"), *bar(parts, pages.num_pages, bar_width), *numbers), width)


def _short_line(model: ModelView, width: int) -> Line:
    now = model.now
    mark = ("● ", "good") if now.ready else ("○ ", "bad")
    used = model.num_used_pages / now.pages.num_pages if now.pages.num_pages else 0.0
    text = f"  {now.device or now.driver} {now.dtype}  KV {format.percent(used)} of {now.pages.num_pages:,}"
    rate = f"  {format.rate(model.rates.tokens_s)} tok/s"
    return cut_line(line(mark, (cut(now.name, 24), "bold"), text, rate), width)


def finding_lines(view: View, width: int, room: int) -> list[Line]:
    """The gravest findings; the first one whole where there is room."""
    if not view.findings:
        return [line(("✓ ", "good"), ("nothing stands out", "dim"))]
    lines: list[Line] = []
    for number, finding in enumerate(view.findings):
        mark, style = ("‼ ", "bad") if finding.is_alert else ("! ", "warn")
        texts = wrap(finding.sentence, width - 2)
        for i, text in enumerate(texts):
            if len(lines) == room:
                # What is cut off is on the page of the diagnosis.
                rest = len(view.findings) - number - (1 if i else 0)
                last = (*lines[-1], Span(ELLIPSIS, style)) if i else lines[-1]
                lines[-1] = beside(last, line((f" +{rest} (6)" if rest else " (6)", "dim")), width)
                return lines
            lines.append(line((mark if i == 0 else "  ", style), (text, style)))
    return lines
