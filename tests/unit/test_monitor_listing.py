"""The programs that the monitor lists, the columns they have, and how numbers are written."""

from __future__ import annotations

import msgspec
import pytest

from pie_cli.monitor import columns, format, preferences
from pie_cli.monitor.listing import Group, Order, entries, found, matches
from pie_cli.monitor.panels import details, market, table, tabs
from pie_cli.monitor.panels.look import Look
from pie_cli.monitor.preferences import Preferences
from pie_cli.monitor.state import Reducer
from pie_cli.monitor.text import bar, beside, cut, cut_line, fractions, line, plain, width_of
from pie_cli.monitor.view import Details, Row
from pie_engine.protocol.stats import ContextState
from tests.loads import Engine
from tests.unit.test_monitor_state import PROGRAM, snapshot

replace = msgspec.structs.replace


def rows() -> tuple[Row, ...]:
    programs = (
        replace(PROGRAM, pid="aa", user="ada", program="chat", num_pages=5),
        replace(PROGRAM, pid="bb", user="grace", program="agent", num_pages=9, state="waiting: pages"),
        replace(PROGRAM, pid="cc", user="ada", program="agent", num_pages=9),
    )
    return Reducer().apply(snapshot(1000, programs=programs)).rows


def pids(order: Order) -> list[str]:
    return [each.key for each in entries(rows(), order)]


def test_numbers_sort_with_the_most_first_and_texts_by_the_alphabet() -> None:
    assert pids(Order("pages")) == ["bb", "cc", "aa"]
    assert pids(Order("pages", is_reversed=True)) == ["aa", "bb", "cc"]
    assert pids(Order("program")) == ["bb", "cc", "aa"]
    assert pids(Order("no such column")) == ["aa", "bb", "cc"]


def test_groups_are_by_owner_with_their_sums() -> None:
    listed = entries(rows(), Order("pages", is_grouped=True))
    assert [each.key for each in listed] == ["group ada", "cc", "aa", "group grace", "bb"]
    group = listed[0]
    assert isinstance(group, Group)
    assert (group.num_programs, group.num_pages) == (2, 14)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["aa", "bb", "cc"]),
        ("ada", ["aa", "cc"]),
        ("ADA agent", ["cc"]),
        ("-ada", ["bb"]),
        ("state:waiting", ["bb"]),
        ("owner:grace", ["bb"]),
        ("program:ada", []),
        ("nothing:like", []),
    ],
)
def test_filters(query: str, expected: list[str]) -> None:
    assert [row.key for row in rows() if matches(row, query)] == expected


def test_a_search_goes_round_and_both_ways() -> None:
    listed = entries(rows(), Order("pid", is_grouped=True))
    assert [each.key for each in listed] == ["group ada", "aa", "cc", "group grace", "bb"]
    assert found(listed, "agent", 0) == 2
    assert found(listed, "agent", 3) == 4
    assert found(listed, "agent", 5) == 2
    assert found(listed, "agent", 1, -1) == 4
    assert found(listed, "nobody", 0) is None
    assert found([], "agent", 0) is None


@pytest.mark.parametrize("width", [20, 80, 200, 400])
def test_columns_fit_and_the_rest_is_counted(width: int) -> None:
    chosen, num_hidden = columns.shown(columns.DEFAULT, width)
    used = sum(column.width for column in chosen) + columns.GAP * (len(chosen) - 1)
    assert used <= width
    assert len(chosen) + num_hidden == len(columns.DEFAULT)
    assert chosen[0].key == "pid"
    moved, _ = columns.shown(columns.DEFAULT, width, 3)
    assert [column.key for column in moved][:2] == ["pid", columns.DEFAULT[4]] or width == 20


def test_lines_of_the_table_are_as_wide_as_their_columns() -> None:
    view = Reducer().apply(next(Engine("contended", 30).stream(1)))
    chosen, _ = columns.shown(tuple(columns.BY_KEY), 500)
    head = table.head(chosen, Order("pages"), 500)
    assert "PAGES▼" in plain(head)
    for row in view.rows:
        assert width_of(table.row_line(row, chosen, 500, is_chosen=False)) == width_of(head)
        assert width_of(table.row_line(row, chosen, 80, is_chosen=True)) == 80
    assert table.column_at(chosen, 0) is chosen[0]
    assert table.column_at(chosen, 9) is chosen[1]
    assert table.column_at(chosen, 5000) is None


def test_what_of_the_table_is_seen() -> None:
    assert table.place(3, 3, 1, 3, 0) == "3"
    assert table.place(60, 60, 1, 12, 4) == "1-12/60 +4→"
    assert table.place(2, 60, 1, 2, 0) == "2 of 60"
    assert table.place(20, 60, 1, 12, 4) == "1-12/20 of 60 +4→"


def test_pages_are_found_where_they_are_drawn() -> None:
    text = plain(tabs.lines(("one", "two"), "two", "", 80)[0])
    assert text.startswith(" 1 One [2 Two]")
    assert [tabs.page_at(("one", "two"), x) for x in (0, 6, 7, 13, 14)] == ["one", "one", "two", "two", None]


def test_states_and_pages_say_it_without_colour() -> None:
    one, two, _ = rows()
    assert columns.state_text(one) == "▶ running"
    assert columns.state_text(two) == "… pages 0s"
    held = next(
        iter(
            Reducer()
            .apply(snapshot(1, programs=(replace(PROGRAM, num_pages=7, num_shared_pages=3, num_host_pages=2),)))
            .rows
        )
    )
    assert columns.pages_text(held) == "7/3+2"


def test_states_that_matter_by_their_length_say_it() -> None:
    def text(state: str) -> str:
        reducer = Reducer()
        for at in (1000.0, 1007.0):
            view = reducer.apply(snapshot(at, programs=(replace(PROGRAM, state=state),)))
        return columns.state_text(view.rows[0])

    assert text("waiting: client") == "… client 7s"
    assert text("computing") == "▷ computing 7s"
    assert text("starting") == "○ starting 7s"
    assert text("running") == "▶ running"
    assert text("idle") == "· idle"


@pytest.mark.parametrize("width", [64, 72, 80, 100])
def test_who_is_in_debt_is_marked_with_whole_words_or_by_the_balance_alone(width: int) -> None:
    view = Reducer().apply(snapshot(1, programs=(replace(PROGRAM, balance=-64_000_000),)))
    (row,) = [text for text in map(plain, market.lines(view, width, 30, Look())) if text.startswith("p1 ")]
    assert "-64" in row
    assert row.endswith("  in debt") == (width == 100)
    assert row.endswith(("  in debt", "-64"))


def test_who_has_used_no_model_has_no_credits() -> None:
    new, poor = (Reducer().apply(snapshot(1, programs=(replace(PROGRAM, model=each),))).rows[0] for each in ("", "m"))
    assert [columns.BY_KEY[key].text(new) for key in ("bid", "balance", "rent")] == ["-"] * 3
    assert [columns.BY_KEY[key].text(poor) for key in ("bid", "balance", "rent")] == ["0"] * 3


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0"),
        (1, "1µ"),
        (999, "999µ"),
        (20_000, "0.02"),
        (1_500_000, "1.5"),
        (980_000_000, "980"),
        (-2_000_000, "-2"),
    ],
)
def test_credits(micro: int, text: str) -> None:
    assert format.credits(micro) == text


def test_numbers() -> None:
    assert [format.count(value) for value in (0, 999, 1234, 12_345, 999_999, 4_500_000)] == [
        "0",
        "999",
        "1,234",
        "12.3k",
        "1.0M",
        "4.5M",
    ]
    assert [format.rate(value) for value in (0, 0.04, 0.4, 12.34, 123.4)] == ["0", "0", "0.4", "12.3", "123"]
    assert [format.percent(value) for value in (None, 0, 0.001, 0.5, 1)] == ["-", "0%", "<1%", "50%", "100%"]
    assert [format.milliseconds(value) for value in (None, 0.0004, 0.012, 1.25)] == ["-", "0.40 ms", "12 ms", "1.2 s"]
    assert [format.age(value) for value in (-1, 4.9, 192, 7500)] == ["0s", "4s", "3m12s", "2h05m"]
    assert format.plural(1, "program"), format.plural(2000, "program") == ("1 program", "2,000 programs")


def test_lines_are_cut_and_joined_to_a_width() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert plain(cut_line(line("abc", ("def", "bold")), 5)) == "abcd…"
    assert plain(beside(line("left"), line("right"), 12)) == "left   right"
    assert plain(beside(line("much too long"), line("right"), 10)) == "muc… right"
    assert fractions([1, 1000, 0], 10, 1001) == [1, 9, 0]
    assert fractions([5], 10, 0) == [0]
    assert plain(bar([(1, "▓", ""), (2, "█", "")], 4, 8)) == "▓▓████··"


def test_the_tree_of_contexts() -> None:
    def context(ctx: int, parent: int | None) -> ContextState:
        return ContextState(ctx, parent, "m", "idle", 10, 3, 1, 0, 0)

    contexts = (context(1, None), context(2, 1), context(3, 1), context(4, 2), context(9, 77))
    text = "\n".join(plain(each) for each in details.lines(rows()[0], Details(contexts), 100))
    assert "Contexts 5" in text
    lines = [each.split(" tokens")[0].rstrip() for each in text.splitlines() if " own + 1 shared pages" in each]
    assert lines == [" 1  10", " ├─ 2  10", " │  └─ 4  10", " └─ 3  10", " 9  10"]


def test_a_deep_tree_and_many_contexts_are_cut_with_a_count() -> None:
    contexts = tuple(ContextState(i, i - 1 if i else None, "m", "idle", 1, 1, 0, 0, 0) for i in range(2000))
    drawn = details.lines(rows()[0], Details(contexts), 80)
    assert all(width_of(each) <= 80 for each in drawn)
    assert any("and 1,800 more" in plain(each) for each in drawn)


def test_events_cannot_move_the_cursor() -> None:
    events = (
        {"seq": 1, "kind": "stdout", "data": "one\n\x1b[2Jtwo", "time": 0.0},
        {"seq": 2, "kind": "message", "data": {"a": 1}, "time": 0.0},
        {"seq": 3, "kind": "error", "data": {"code": "trap", "message": "it broke"}, "time": 0.0},
    )
    text = "\n".join(plain(each) for each in details.events(Details(events=events), 80))
    assert "\x1b" not in text
    assert "[2Jtwo" in text
    assert '{"a": 1}' in text
    assert "trap: it broke" in text


def test_preferences_are_kept_and_damaged_ones_are_the_defaults(tmp_path) -> None:
    assert preferences.load(tmp_path) == Preferences()
    chosen = Preferences(("pid", "bid"), "bid", True, True, 2, "textual-light")
    preferences.save(tmp_path / "new", chosen)
    assert preferences.load(tmp_path / "new") == chosen
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["monitor.json"]
    (tmp_path / "monitor.json").write_text('{"columns": ["pid", "gone"], "sort": "gone", "zoom": 9}')
    assert preferences.load(tmp_path) == Preferences(("pid",), zoom=2)
    (tmp_path / "monitor.json").write_text("{")
    assert preferences.load(tmp_path) == Preferences()
    # A home that cannot be written is no reason to fail.
    preferences.save(tmp_path / "monitor.json", chosen)
