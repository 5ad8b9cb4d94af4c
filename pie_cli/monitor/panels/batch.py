"""What the core runs: tokens and rows of a step against their limits, and where its time goes."""

from __future__ import annotations

from pie_cli.monitor import format
from pie_cli.monitor.panels.look import Look, chosen, heading, labelled
from pie_cli.monitor.series import History, chart, sparkline
from pie_cli.monitor.text import Line, Span, bar, cut_line, flowing, line
from pie_cli.monitor.view import ModelView, View

KINDS = (("prefill", "▓"), ("decode", "█"), ("draft", "▒"))
LABEL_WIDTH = 9
NUM_NUMBER_LINES = 3


def numbers(view: View, width: int, look: Look) -> list[Line]:
    """Above the programs: tokens, rows and times of a step."""
    model = chosen(view, look)
    return _none(width) if model is None else _head(view, model, width, look)


def history(view: View, width: int, height: int, look: Look) -> list[Line]:
    """Below them: tokens of a step over time, as high as there is room."""
    model = chosen(view, look)
    return [] if model is None else _history("tokens", _sum(model, look), width, height, 0.0)


def charts(view: View, width: int, height: int, look: Look) -> list[Line]:
    """The page of its own: every history, one chart below the other."""
    model = chosen(view, look)
    if model is None:
        return _none(width)
    lines = _head(view, model, width, look)
    history, batches = model.history, model.now.batches
    each = (
        ("prefill", history.prefill, 0.0),
        ("decode", history.decode, 0.0),
        ("draft", history.draft, 0.0),
        ("rows", history.sequences, float(batches.max_sequences)),
        ("step ms", history.step_ms, 0.0),
        ("gap ms", history.gap_ms, 0.0),
        ("tok/s", history.tokens_s, 0.0),
        ("KV pages", history.used_pages, float(model.now.pages.num_pages)),
    )
    rows, rest = divmod(max(height - len(lines), len(each)), len(each))
    for i, (name, numbers, top) in enumerate(each):
        # What is left over goes to the first ones: from two lines on a chart has the value of its highest bar.
        lines += _history(name, _points(numbers, look), width, rows + (i < rest), top)
    return lines[:height]


def _none(width: int) -> list[Line]:
    return [heading("Batch", width), line(("no model is loaded", "dim"))]


def _head(view: View, model: ModelView, width: int, look: Look) -> list[Line]:
    """`NUM_NUMBER_LINES` of them."""
    title = heading(_title(view, model), width, f"{look.span} (z)")
    return [title, _tokens_line(model, width), _times_line(model, width)]


def _title(view: View, model: ModelView) -> str:
    return f"Batch of {model.now.name} (m: next model)" if len(view.models) > 1 else "Batch"


def _tokens_line(model: ModelView, width: int) -> Line:
    rates, batches = model.rates, model.now.batches
    values = (rates.prefill, rates.decode, rates.draft)
    parts = [(value, mark, name) for value, (name, mark) in zip(values, KINDS, strict=True)]
    texts: list[Span] = []
    for value, (name, mark) in zip(values, KINDS, strict=True):
        texts += [Span(f"  {mark} ", name), Span(format.rate(value), "bold"), Span(f" {name}", "dim")]
    limit = (f" of {format.count(batches.max_tokens)} a step", "dim")
    numbers = line((f" {format.rate(rates.tokens)}", "bold"), limit, *texts)
    bar_width = min(max(width - sum(len(span.text) for span in numbers) - LABEL_WIDTH, 8), 60)
    label = Span("tokens".ljust(LABEL_WIDTH), "dim")
    return cut_line((label, *bar(parts, batches.max_tokens or rates.tokens or 1, bar_width), *numbers), width)


def _times_line(model: ModelView, width: int) -> Line:
    """The last ones go first where there is too little room."""
    rates, batches = model.rates, model.now.batches
    use = model.now.device_use
    rows = line(
        ("rows".ljust(LABEL_WIDTH), "dim"),
        (format.rate(rates.sequences), "bold"),
        (f" (peak {model.peak_sequences}) of {batches.max_sequences}", "dim"),
    )
    parts = (
        rows,
        labelled("step", format.milliseconds(rates.step_s)),
        labelled("gap", format.milliseconds(rates.gap_s)),
        labelled("busy", format.percent(rates.busy)),
        *(() if use is None else (labelled("GPU", format.percent(use)),)),
        labelled("steps/s", format.rate(rates.steps_s)),
    )
    return cut_line(flowing(parts, width)[0], width)


def _history(label: str, points: list[float], width: int, height: int, top: float) -> list[Line]:
    """A chart with its label and the value of its highest bar at the left."""
    if height < 1:
        return []
    room = width - LABEL_WIDTH
    known = [point for point in points[-room:] if point == point]
    peak = top or max(known, default=0.0)
    if height == 1:
        return [line((label.ljust(LABEL_WIDTH), "dim"), (sparkline(points, room, top), "decode"))]
    labels = [label, f"≤ {format.count(peak)}" if peak >= 10 else f"≤ {peak:.2g}"]
    rows = chart(points, room, height, top)
    return [
        line(((labels[i] if i < len(labels) else "").ljust(LABEL_WIDTH), "dim"), (row, "decode"))
        for i, row in enumerate(rows)
    ]


def _points(history: History, look: Look) -> list[float]:
    return history.levels[look.zoom].points()


def _sum(model: ModelView, look: Look) -> list[float]:
    """Tokens of all kinds."""
    history = model.history
    kinds = zip(*(_points(each, look) for each in (history.prefill, history.decode, history.draft)), strict=True)
    return [sum(values) for values in kinds]
