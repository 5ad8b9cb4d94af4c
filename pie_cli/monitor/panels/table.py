"""The lines of the programs table."""

from __future__ import annotations

from collections.abc import Sequence

from pie_cli.monitor import format
from pie_cli.monitor.columns import GAP, Column
from pie_cli.monitor.listing import Entry, Group, Order
from pie_cli.monitor.text import Line, Span, cut_line, fit, line, plain
from pie_cli.monitor.view import Row

GAP_TEXT = " " * GAP
WAIT_STYLES = {"credits": "bad"} | dict.fromkeys(("consumer", "children", "client", "timer"), "dim")
"""Others slow it down."""
STATE_STYLES = {"running": "good", "queued": "warn", "starting": "dim", "idle": "dim", "paused": "dim"}


def place(num_shown: int, num_all: int, first: int, last: int, num_hidden: int) -> str:
    """What of the table is seen: `1-12/60 +9→` are rows, and nine more columns; `1-12/20 of 60` those of a filter."""
    rows = f"{first}-{last}/{num_shown:,}" if num_shown > last - first + 1 else f"{num_shown:,}"
    filtered = f" of {num_all:,}" if num_shown != num_all else ""
    return rows + filtered + (f" +{num_hidden}→" if num_hidden else "")


def head(columns: Sequence[Column], order: Order, width: int) -> Line:
    """The names of the columns; an arrow at the one that they are sorted by."""
    spans: list[Span] = []
    for column in columns:
        name = column.title
        if column.key == order.sort:
            arrow = "▼" if column.starts_with_most != order.is_reversed else "▲"
            name = name[: column.width - 1] + arrow
        spans.append(Span((GAP_TEXT if spans else "") + fit(name, column.width, right=column.is_number), "title"))
    return cut_line(tuple(spans), width)


def row_line(entry: Entry, columns: Sequence[Column], width: int, *, is_chosen: bool) -> Line:
    """As few spans as there are styles beside one another: each costs a picture what a character does not."""
    spans = tuple(_group_spans(entry)) if isinstance(entry, Group) else _cells(entry, columns)
    if is_chosen:
        return line((fit("›" + plain(spans)[1:] if isinstance(entry, Group) else plain(spans), width), "cursor"))
    # They are chosen so that they fit.
    return cut_line(spans, width) if isinstance(entry, Group) else spans


def column_at(columns: Sequence[Column], x: int) -> Column | None:
    """The one that is drawn at a cell of the line."""
    for column in columns:
        if x < column.width + GAP:
            return column
        x -= column.width + GAP
    return None


def _cells(row: Row, columns: Sequence[Column]) -> Line:
    styles = {"pid": "bold", "state": _state_style(row)}
    if row.now.balance < 0:
        styles["balance"] = "bad"
    spans: list[Span] = []
    run, run_style = "", ""
    for column in columns:
        # The gap before it, so that nothing stands behind the last one.
        text = fit(column.text(row), column.width, right=column.is_number)
        style = styles.get(column.key, "")
        if not run:
            run, run_style = text, style
        elif style == run_style:
            run += GAP_TEXT + text
        else:
            spans.append(Span(run, run_style))
            run, run_style = GAP_TEXT + text, style
    return (*spans, Span(run, run_style))


def _state_style(row: Row) -> str:
    if row.is_waiting:
        return WAIT_STYLES.get(row.waits_for_what, "warn")
    return STATE_STYLES.get(row.now.state, "")


def _group_spans(group: Group) -> list[Span]:
    about = (
        f"  {format.plural(group.num_programs, 'program')}  {group.num_pages:,} pages  "
        f"{format.rate(group.tokens_s)} tok/s  balance {format.credits(group.balance)}"
    )
    return [Span("─ ", "dim"), Span(group.owner or "(nobody)", "accent"), Span(about, "dim")]
