"""A panel that is higher than its place: arrows, pages and the wheel move it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from pie_cli.monitor.text import Line
from pie_cli.monitor.widgets.panel import Panel

WHEEL_LINES = 3


class ScrolledPanel(Panel):
    """Stays at its end while more comes, if it was there and `follows`."""

    follows = False

    can_focus = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False, id="scroll.up"),
        Binding("down", "move(1)", "Down", show=False, id="scroll.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="scroll.pageup"),
        Binding("pagedown,space", "page(1)", "Page down", show=False, id="scroll.pagedown"),
        Binding("home", "move(-1000000)", "To the top", show=False, id="scroll.home"),
        Binding("end", "move(1000000)", "To the end", show=False, id="scroll.end"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._all: Sequence[Line] = ()
        self._top = 0

    def show_all(self, lines: Sequence[Line]) -> None:
        was_at_end = self._top >= self._last_top
        self._all = lines
        if self.follows and was_at_end:
            self._top = self._last_top
        self._draw()

    @property
    def _last_top(self) -> int:
        return max(len(self._all) - self.size.height, 0)

    def _draw(self) -> None:
        self._top = min(max(self._top, 0), self._last_top)
        self.show(self._all[self._top : self._top + self.size.height])

    def action_move(self, number: int) -> None:
        self._top += number
        self._draw()

    def action_page(self, number: int) -> None:
        self.action_move(number * max(self.size.height - 1, 1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(-WHEEL_LINES)

    def on_resize(self) -> None:
        self._draw()
