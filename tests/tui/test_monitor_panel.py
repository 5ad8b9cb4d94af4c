"""Panels repaint what differs, and nothing of an earlier picture stays."""

from __future__ import annotations

import pytest

from pie_cli.monitor.text import Line, line, plain
from pie_cli.monitor.widgets.panel import _changed

WIDTH = 30


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (line("state ", "waiting: pages ", "0s"), line("state ", "running ", "0s")),
        (line("state ", "running ", "0s"), line("state ", "waiting: pages ", "0s")),
        (line("busy ", "100", "%"), line("busy ", "65", "%")),
        (line("a", "bcd", "e"), line("ab", "cd", "e")),
        (line("one", "two"), line("one")),
        (line("one"), ()),
        ((), line("one")),
        (line("same", ("b", "bold")), line("same", ("b", "dim"))),
    ],
)
def test_what_is_repainted_is_all_that_differs(old: Line, new: Line) -> None:
    region = _changed(0, old, new, WIDTH)
    before, now = plain(old).ljust(WIDTH), plain(new).ljust(WIDTH)
    seen = before[: region.x] + now[region.x : region.right] + before[region.right :]
    assert seen == now


def test_characters_of_two_cells_are_repainted_whole() -> None:
    assert _changed(0, line("a", "日本語"), line("a", "abc"), WIDTH).right >= 7


def test_what_stays_is_not_painted_again() -> None:
    assert _changed(0, line("rows ", "12", " of 64"), line("rows ", "13", " of 64"), WIDTH).column_span == (5, 7)
