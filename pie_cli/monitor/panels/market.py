"""Price, rent and dividends over time; who paid, who was moved out."""

from __future__ import annotations

from rich.cells import cell_len

from pie_cli.monitor import format
from pie_cli.monitor.columns import BY_KEY, Column
from pie_cli.monitor.panels.look import Look, chosen, heading, labelled
from pie_cli.monitor.series import chart
from pie_cli.monitor.text import Line, cut_line, fit, flowing, line
from pie_cli.monitor.view import Row, View

LABEL_WIDTH = 9
IN_DEBT = "  in debt"
COLUMNS = ("pid", "program", "pages", "bid", "paying", "rent", "dividends", "balance")
DISPENSABLE = ("pages", "dividends", "rent")
"""Columns that go first where there is too little room."""


def lines(view: View, width: int, height: int, look: Look) -> list[Line]:
    model = chosen(view, look)
    if model is None:
        return [heading("Market", width), line(("no model is loaded", "dim"))]
    market = model.now.market
    rows = [row for row in view.rows if row.now.model == model.now.name]
    dividends_s = sum(row.dividends_s for row in rows)
    drawn = [
        heading(f"Market of {model.now.name}", width, f"{look.span} (z)"),
        *flowing(
            (
                labelled("policy", market.policy),
                labelled("price", format.credits(market.price)),
                labelled("rent/s", format.credits(model.rent_s)),
                labelled("dividends/s", format.credits(dividends_s)),
                labelled("rent so far", format.credits(market.rent)),
                labelled("pages made", format.count(market.made)),
                labelled("moved out", format.count(market.num_moved_out)),
            ),
            width,
        ),
    ]
    chart_rows = 1 if height < 16 else min(max((height - 12) // 4, 2), 8)
    for label, history in (("price", model.history.price), ("rent/s", model.history.rent_s)):
        drawn += _chart(label, history.levels[look.zoom].points(), width, chart_rows)
    room = height - len(drawn)
    num_log = min(max(room // 3, 2), 10) if room > 6 else 0
    drawn += _accounts(rows, width, room - num_log)
    return [*drawn, *moved_out(view, width, num_log)][:height]


def _chart(label: str, points: list[float], width: int, height: int) -> list[Line]:
    """Of micro-credits."""
    room = width - LABEL_WIDTH
    peak = max((point for point in points[-room:] if point == point), default=0.0)
    labels = [label, f"≤ {format.credits(peak)}"]
    drawn = chart(points, room, height)
    return [
        line(((labels[i] if i < len(labels) else "").ljust(LABEL_WIDTH), "dim"), (row, "accent"))
        for i, row in enumerate(drawn)
    ]


def _accounts(rows: list[Row], width: int, height: int) -> list[Line]:
    """Who pays most, the first of them."""
    if height < 2:
        return []
    columns = _fitting(width)
    payers = sorted(rows, key=lambda row: (-row.rent_s, -row.now.rent, row.key))[: height - 1]
    head = "  ".join(fit(column.title, column.width, right=column.is_number) for column in columns)
    drawn = [line((head, "title"))]
    for row in payers:
        text = "  ".join(fit(column.text(row), column.width, right=column.is_number) for column in columns)
        drawn.append(line(text, *_debt(row, width - cell_len(text))))
    return [cut_line(each, width) for each in drawn]


def _debt(row: Row, room: int) -> Line:
    """Where there is room for the words; the balance says it as well."""
    return line((IN_DEBT, "bad")) if row.now.balance < 0 and room >= len(IN_DEBT) else ()


def _fitting(width: int) -> list[Column]:
    """As many of the columns as there is room for, those that matter most."""
    keys = list(COLUMNS)
    for least in DISPENSABLE:
        if sum(BY_KEY[key].width + 2 for key in keys) - 2 <= width:
            break
        keys.remove(least)
    return [BY_KEY[key] for key in keys]


def moved_out(view: View, width: int, height: int) -> list[Line]:
    """The newest of those who lost their pages."""
    if height < 2:
        return []
    moved = [each for each in view.log if each.kind == "moved"][-(height - 1) :]
    drawn = [heading("Moved out", width)]
    if not moved:
        drawn.append(line(("nobody yet", "dim")))
    for each in reversed(moved):
        ago = format.age(view.at - each.at)
        drawn.append(cut_line(line((f"{ago:>6} ago  ", "dim"), (f"{each.pid[:8]}  ", "bold"), each.text), width))
    return drawn
