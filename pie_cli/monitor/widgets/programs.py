"""The table of programs: a cursor, sorting by a click, and as many rows as there is room for."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from pie_cli.monitor.columns import COLUMNS, Column, shown
from pie_cli.monitor.listing import Entry, Group, Order, entries, found
from pie_cli.monitor.panels import table
from pie_cli.monitor.view import Row, View
from pie_cli.monitor.widgets.panel import Panel
from pie_cli.monitor.widgets.scrolled import WHEEL_LINES

NUM_HEAD_LINES = 1
TABLE_KEYS = [
    Binding("up", "move(-1)", "Up", show=False, id="table.up", tooltip="The program above"),
    Binding("down", "move(1)", "Down", show=False, id="table.down", tooltip="The program below"),
    Binding("pageup", "page(-1)", "Page up", show=False, id="table.pageup"),
    Binding("pagedown", "page(1)", "Page down", show=False, id="table.pagedown"),
    Binding("home", "move(-1000000)", "First", show=False, id="table.home", tooltip="The first program"),
    Binding("end", "move(1000000)", "Last", show=False, id="table.end", tooltip="The last program"),
    Binding("left", "columns(-1)", "Columns left", show=False, id="table.left", tooltip="Columns to the left"),
    Binding("right", "columns(1)", "Columns right", show=False, id="table.right", tooltip="Columns to the right"),
    Binding("enter", "open", "Details", id="table.open", tooltip="All of the chosen program"),
]


class ProgramsTable(Panel):
    """Once moved, the cursor stays on its program while others come and go; on its place when that one has ended."""

    can_focus = True
    BINDINGS: ClassVar[list[BindingType]] = [*TABLE_KEYS]

    class Opened(Message):
        """The user wants to see all of a program."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    class Ordered(Message):
        """The user has chosen another order."""

        def __init__(self, order: Order) -> None:
            super().__init__()
            self.order = order

    class Moved(Message):
        """Other rows or columns are seen."""

    def __init__(self, columns: tuple[str, ...], order: Order, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.order = order
        self._view: View | None = None
        self._entries: list[Entry] = []
        self._cursor = 0
        self._cursor_key = ""
        self._has_moved = False
        """Before that the first program is the chosen one, whichever it is."""
        self._top = 0
        self._first_column = 0
        self._drawn: list[Column] = []
        self.place = ""
        """What of the table is seen, in words."""

    def update_view(self, view: View) -> None:
        self._view = view
        self._arrange()

    def set_order(self, order: Order) -> None:
        self.order = order
        self._arrange()
        self._show_cursor()
        self._draw()
        self.post_message(self.Ordered(order))

    def set_columns(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._first_column = 0
        self._draw()

    @property
    def chosen(self) -> Row | None:
        """The program under the cursor."""
        entry = self._entries[self._cursor] if self._cursor < len(self._entries) else None
        return entry if isinstance(entry, Row) else None

    @property
    def listed(self) -> list[Entry]:
        return self._entries

    def find(self, query: str, step: int = 0) -> bool:
        """Move to what a search finds: the chosen one too for `step` 0, the next for 1, the one before for -1."""
        i = found(self._entries, query, self._cursor + step, step or 1)
        if i is not None:
            self._move_to(i)
        return i is not None

    def sort_by(self, key: str) -> None:
        """Once more the same: the other way round."""
        is_same = key == self.order.sort
        self.set_order(replace(self.order, sort=key, is_reversed=is_same and not self.order.is_reversed))

    def sort_by_next(self, step: int) -> None:
        keys = [column.key for column in COLUMNS if column.key in self.columns] or [self.order.sort]
        at = keys.index(self.order.sort) if self.order.sort in keys else 0
        self.set_order(replace(self.order, sort=keys[(at + step) % len(keys)], is_reversed=False))

    def action_move(self, number: int) -> None:
        self._move_to(self._cursor + number)

    def action_page(self, number: int) -> None:
        self.action_move(number * self._room)

    def action_columns(self, number: int) -> None:
        _, num_hidden = shown(self.columns, self.size.width, self._first_column)
        if number < 0 or num_hidden > self._first_column:
            self._first_column = max(self._first_column + number, 0)
            self._draw()

    def action_open(self) -> None:
        if self.chosen is not None:
            self.post_message(self.Opened(self.chosen))

    def on_click(self, event: events.Click) -> None:
        if event.y == NUM_HEAD_LINES - 1:
            column = table.column_at(self._drawn, event.x)
            if column is not None:
                self.sort_by(column.key)
            return
        i = self._top + event.y - NUM_HEAD_LINES
        if event.y >= NUM_HEAD_LINES and i < len(self._entries):
            self._move_to(i)
            if event.chain == 2:
                self.action_open()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._scroll(WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._scroll(-WHEEL_LINES)

    def on_resize(self) -> None:
        self._show_cursor()
        self._draw()

    @property
    def _room(self) -> int:
        return max(self.size.height - NUM_HEAD_LINES, 1)

    def _arrange(self) -> None:
        if self._view is None:
            return
        self._entries = entries(self._view.rows, self.order)
        self._follow_cursor()
        self._draw()

    def _follow_cursor(self) -> None:
        """The row that was chosen may be elsewhere now; the picture does not move for that."""
        if not self._has_moved:
            self._cursor = next((i for i, entry in enumerate(self._entries) if isinstance(entry, Row)), 0)
            return
        for i, entry in enumerate(self._entries):
            if entry.key == self._cursor_key:
                self._cursor = i
                break
        self._cursor = min(self._cursor, max(len(self._entries) - 1, 0))
        self._remember()

    def _move_to(self, i: int) -> None:
        self._has_moved = True
        self._cursor = min(max(i, 0), max(len(self._entries) - 1, 0))
        self._remember()
        self._show_cursor()
        self._draw()

    def _remember(self) -> None:
        self._cursor_key = self._entries[self._cursor].key if self._entries else ""

    def _show_cursor(self) -> None:
        """With the line of its owner, where it is the first one below that."""
        before = self._cursor - 1
        first = before if before >= 0 and isinstance(self._entries[before], Group) and self._room > 1 else self._cursor
        self._top = min(max(self._top, self._cursor - self._room + 1), first)

    def _scroll(self, number: int) -> None:
        self._top += number
        self._draw()

    def _draw(self) -> None:
        if self._view is None or not self.size.width:
            return
        width = self.size.width
        self._top = min(max(self._top, 0), max(len(self._entries) - self._room, 0))
        self._drawn, num_hidden = shown(self.columns, width, self._first_column)
        visible = self._entries[self._top : self._top + self._room]
        num_rows = sum(isinstance(entry, Row) for entry in self._entries)
        first, last = min(self._top + 1, len(self._entries)), self._top + len(visible)
        place = table.place(num_rows, len(self._view.rows), first, last, num_hidden)
        if place != self.place:
            self.place = place
            self.post_message(self.Moved())
        self.show(
            [
                table.head(self._drawn, self.order, width),
                *(
                    table.row_line(entry, self._drawn, width, is_chosen=self._top + i == self._cursor)
                    for i, entry in enumerate(visible)
                ),
            ]
        )
