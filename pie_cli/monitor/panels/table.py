"""The lines of the programs table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from pie_cli.monitor import format
from pie_cli.monitor.columns import GAP, Column
from pie_cli.monitor.listing import Entry, Group, Order
from pie_cli.monitor.text import Line, Span, cut_line, fit, line, plain
from pie_cli.monitor.view import Row

WAIT_STYLES = {"batch": "warn", "pages": "warn", "credits": "bad", "disk": "warn", "grammar": "warn", "consumer": "dim"}
STATE_STYLES = {"running": "good", "queued": "warn", "idle": "dim", "paused": "dim"}


def place(num_shown: int, num_all: int, first: int, last: int, num_hidden: int) -> str:
    """What of the table is seen: `1-12 of 60, +9 columns →`."""
    rows = f"{first}-{last} of {num_shown:,}" if num_shown > last - first + 1 else f"{num_shown:,}"
    filtered = f" (of {num_all:,})" if num_shown != num_all else ""
    return rows + filtered + (f" +{num_hidden}→" if num_hidden else "")


def head(columns: Sequence[Column], order: Order, width: int) -> Line:
    """The names of the columns; an arrow at the one that they are sorted by."""
    spans: list[Span] = []
    for column in columns:
        name = column.title
        if column.key == order.sort:
            arrow = "▼" if column.starts_with_most != order.is_reversed else "▲"
            name = name[: column.width - 1] + arrow
        spans.append(Span((" " * GAP if spans else "") + fit(name, column.width, right=column.is_number), "title"))
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
    styles = {"pid": "bold", "state": _state_style(row), "balance": "bad" if row.now.balance < 0 else ""}
    cells: list[tuple[str, str]] = []
    for column in columns:
        # The gap before it, so that nothing stands behind the last one.
        gap = " " * GAP if cells else ""
        text = gap + fit(column.text(row), column.width, right=column.is_number)
        cells.append((text, styles.get(column.key, "")))
    by_style = groupby(cells, itemgetter(1))
    return tuple([Span("".join([text for text, _ in run]), style) for style, run in by_style])


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
