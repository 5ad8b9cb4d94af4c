"""All of one program: its numbers, contexts as a tree, phases, bids and balance over time, events."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from pie_cli.monitor import format
from pie_cli.monitor.columns import MARKS, pages_text, state_text
from pie_cli.monitor.panels.look import heading, labelled
from pie_cli.monitor.series import Series, chart
from pie_cli.monitor.text import Line, cut, cut_line, flowing, line, wrap
from pie_cli.monitor.view import Details, Row
from pie_engine.protocol.stats import ContextState

LABEL_WIDTH = 10
NUM_PHASES = 12
NUM_CONTEXTS = 200
MAX_EVENT_LINES = 20
PHASE_MARKS = MARKS | {"running": "█", "waiting: credits": "$", "waiting: consumer": "!"}
"""Other waits have the first letter of what they are for."""


def lines(row: Row, details: Details, width: int, *, has_ended: bool = False) -> list[Line]:
    """One page; it is higher than most terminals."""
    drawn = [*_summary(row, width, has_ended=has_ended), *_contexts(details, width), *_phases(row, width)]
    drawn += _charts(row, width)
    return [*drawn, heading("Events", width), *events(details, width)]


def events(details: Details, width: int) -> list[Line]:
    """What it said, the newest last."""
    drawn = [each for event in details.events for each in _event(event, width)]
    if not drawn and not details.problem:
        drawn.append(line(("nothing yet", "dim")))
    if details.problem:
        drawn.append(line(("! ", "warn"), (details.problem, "warn")))
    return [cut_line(each, width) for each in drawn]


def _summary(row: Row, width: int, *, has_ended: bool) -> list[Line]:
    now = row.now
    state = "ended; this is what was last seen of it" if has_ended else state_text(row)
    pairs = (
        ("state", state),
        ("owner", now.user),
        ("age", format.age(row.age_s)),
        ("model", now.model or format.NOTHING),
        ("host", now.host or format.NOTHING),
        *([("parent", now.parent)] if now.parent else []),
        ("batch share", format.percent(row.batch_share)),
        ("pages", pages_text(row)),
        ("tokens", f"{now.num_generated:,}"),
        ("tok/s", format.rate(row.tokens_s)),
        ("prompt", f"{now.num_prompt:,}"),
        ("cache hit", format.percent(row.cache_hit)),
        ("accepted", format.percent(row.accept_rate)),
        ("bid", format.credits(now.bid)),
        ("balance", format.credits(now.balance)),
        ("endowment", format.credits(now.endowment)),
        ("rent paid", format.credits(now.rent)),
        ("dividends", format.credits(now.dividends)),
        ("pages made", f"{now.num_made:,}"),
        ("moved out", f"{now.num_moved_out:,}"),
    )
    drawn = [heading(f"{row.label} {now.pid}", width)]
    if now.waits_for and not has_ended:
        drawn += [line(("why: ", "dim"), (text, "warn")) for text in wrap(now.waits_for, width - 5)]
    return [*drawn, *flowing((labelled(label, value) for label, value in pairs), width, gap=3)]


def _contexts(details: Details, width: int) -> list[Line]:
    """The tree of forks. Shared pages are those that other contexts hold as well."""
    drawn = [heading(f"Contexts {len(details.contexts)}", width)]
    if not details.contexts:
        return [*drawn, line(("none", "dim"))]
    present = {context.ctx for context in details.contexts}
    children: dict[int | None, list[ContextState]] = {}
    for context in details.contexts:
        children.setdefault(context.parent if context.parent in present else None, []).append(context)
    # A stack and no recursion: forks of forks may be deep.
    stack = [(context, "", True) for context in reversed(children.get(None, []))]
    while stack and len(drawn) <= NUM_CONTEXTS:
        context, lead, is_root = stack.pop()
        drawn.append(_context(context, lead, width))
        below = children.get(context.ctx, [])
        base = "" if is_root else lead.replace("├─", "│ ").replace("└─", "  ")
        for i, child in reversed(list(enumerate(below))):
            stack.append((child, base + (" └─" if i == len(below) - 1 else " ├─"), False))
    hidden = len(details.contexts) - (len(drawn) - 1)
    return [*drawn, line((f"and {hidden:,} more", "dim"))] if hidden > 0 else drawn


def _context(context: ContextState, lead: str, width: int) -> Line:
    own = context.num_pages - context.num_shared_pages
    host = f" +{context.num_host_pages} in host memory" if context.num_host_pages else ""
    return cut_line(
        line(
            (cut(lead, max(width - 40, 0)), "dim"),
            (f" {context.ctx} ", "bold"),
            f" {context.num_tokens:,} tokens  {own} own + {context.num_shared_pages} shared pages{host}",
            (f"  {context.state}  bid {format.credits(context.bid)}", "dim"),
        ),
        width,
    )


def _phases(row: Row, width: int) -> list[Line]:
    """A bar of the time that is known, and the newest phases with their length."""
    phases = list(row.history.phases)
    now = row.now.created + row.age_s
    ends = [phase.since for phase in phases[1:]] + [now]
    drawn = [heading("Phases", width), _timeline(row, phases, now, width)]
    states = dict.fromkeys(phase.state for phase in phases)
    drawn += flowing((line((f"{_mark(state)} ", "accent"), (state, "dim")) for state in states), width)
    newest = list(zip(phases, ends, strict=True))[-NUM_PHASES:]
    for phase, end in reversed(newest):
        clock = time.strftime("%H:%M:%S", time.localtime(phase.since))
        drawn.append(line((f"{clock} ", "dim"), f"{phase.state} ", (format.age(end - phase.since), "bold")))
    return [cut_line(each, width) for each in drawn]


def _timeline(row: Row, phases: Sequence[object], now: float, width: int) -> Line:
    known = list(row.history.phases)
    begin = known[0].since
    span = max(now - begin, 0.001)
    cells = []
    at = 0
    for x in range(width):
        moment = begin + span * (x + 0.5) / width
        while at + 1 < len(known) and known[at + 1].since <= moment:
            at += 1
        cells.append(_mark(known[at].state))
    return line(("".join(cells), "accent"))


def _mark(state: str) -> str:
    return PHASE_MARKS.get(state) or state.partition(": ")[2][:1] or "?"


def _charts(row: Row, width: int) -> list[Line]:
    history = row.history
    drawn = [heading("Over time", width, "10 min")]
    each = (
        ("tok/s", history.tokens_s, format.rate),
        ("pages", history.pages, format.count),
        ("bid", history.bid, format.credits),
        ("balance", history.balance, format.credits),
    )
    for label, series, text in each:
        drawn += _chart(label, series, text, width)
    return drawn


def _chart(label: str, series: Series, text: object, width: int) -> list[Line]:
    assert callable(text)
    room = width - LABEL_WIDTH
    points = series.points()
    peak = max((point for point in points[-room:] if point == point), default=0.0)
    labels = (label, f"≤ {text(peak)}")
    rows = chart(points, room, 2)
    return [line((labels[i].ljust(LABEL_WIDTH), "dim"), (each, "decode")) for i, each in enumerate(rows)]


def _event(event: dict[str, object], width: int) -> list[Line]:
    clock = time.strftime("%H:%M:%S", time.localtime(float(str(event.get("time") or 0))))
    kind = str(event.get("kind", ""))
    texts = _event_text(kind, event.get("data")).splitlines() or [""]
    style = {"stderr": "warn", "error": "bad", "return": "good"}.get(kind, "")
    lead = f"{clock} {kind:<8} "
    drawn = []
    for i, text in enumerate(texts[:MAX_EVENT_LINES]):
        drawn.append(line((lead if i == 0 else " " * len(lead), "dim"), (_printable(text), style)))
    if len(texts) > MAX_EVENT_LINES:
        drawn.append(line((" " * len(lead) + f"and {len(texts) - MAX_EVENT_LINES} more lines", "dim")))
    return drawn


def _event_text(kind: str, data: object) -> str:
    if isinstance(data, str):
        return data
    if kind == "log" and isinstance(data, dict):
        return f"{data.get('level', 'info')}: {data.get('message', '')}"
    if kind == "error" and isinstance(data, dict):
        return f"{data.get('traceback') or ''}{data.get('code', '')}: {data.get('message', '')}"
    return json.dumps(data, ensure_ascii=False, default=str)


def _printable(text: str) -> str:
    """Programs may print what moves the cursor of a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
