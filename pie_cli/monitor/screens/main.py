"""The picture itself: header, what stands out, batch, and the page that is chosen."""

from __future__ import annotations

import time
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Footer, Input, Label

from pie_cli.monitor.keys import BINDINGS as KEYS
from pie_cli.monitor.keys import PAGES
from pie_cli.monitor.listing import Order
from pie_cli.monitor.panels import batch, findings, header, market, parts, service, tabs
from pie_cli.monitor.panels.look import Look
from pie_cli.monitor.screens.ask import take_letter
from pie_cli.monitor.text import Line
from pie_cli.monitor.view import View
from pie_cli.monitor.widgets.panel import Panel
from pie_cli.monitor.widgets.programs import ProgramsTable
from pie_cli.monitor.widgets.straight import PanelScreen

WIDE_COLUMNS, WIDE_LINES = 150, 40
"""From here on market, throughput and log stand beside the programs."""
LOW_LINES = 16
"""Below that there is room for the programs alone."""
MAX_MODEL_LINES = 8
READ_S = 0.4
"""Between two pictures of the programs at least, however fast a recording is replayed."""
PANELS = ("status", "models", "findings", "batch", "tabs", "page", "side-market", "side-throughput", "side-log")


class Beside(Horizontal):
    """What is in it covers it, and what is not covered is blank: Textual need not compose that again and again."""

    BLANK = True


class Below(Vertical):
    """See `Beside`."""

    BLANK = True


class MainScreen(PanelScreen[None]):
    BLANK = True
    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]

    def __init__(self, columns: tuple[str, ...], order: Order, look: Look) -> None:
        super().__init__()
        self.look = look
        self.page = PAGES[0]
        self.connection = "connecting"
        self.is_frozen = False
        self._view: View | None = None
        self._rows_at = self._read_at = 0.0
        """Of the programs that are drawn: when they were looked at, and when they were drawn."""
        self._model_height = 0
        self._batch_history: list[Line] = []
        self.programs = ProgramsTable(columns, order, id="programs")
        self._panels = {name: Panel(id=name) for name in PANELS}
        self._asked = ""
        """`search` or `filter` while its words are typed."""

    def compose(self) -> ComposeResult:
        panels = self._panels
        for name in ("status", "models", "findings", "batch", "tabs"):
            yield panels[name]
        with Beside(id="body"):
            yield self.programs
            yield panels["page"]
            with Below(id="side"):
                for name in ("side-market", "side-throughput", "side-log"):
                    yield panels[name]
        with Horizontal(id="prompt"):
            yield Label("", id="prompt-name")
            yield Input(id="words", compact=True)
        # In a place of its own it is not composed with every change elsewhere.
        with Below(id="foot"):
            yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.programs.focus()

    def on_resize(self) -> None:
        width, height = self.app.size
        self.set_class(width >= WIDE_COLUMNS and height >= WIDE_LINES, "wide")
        self.set_class(height < LOW_LINES, "low")
        self.call_after_refresh(self.draw)

    def update_view(self, view: View) -> None:
        """Batches with every view; what is read row by row when there are new rows."""
        self._make_room(view)
        self._view = view
        now = time.monotonic()
        if view.rows_at != self._rows_at and now - self._read_at >= READ_S:
            self._rows_at, self._read_at = view.rows_at, now
            self.programs.update_view(view)
            self.draw()
        else:
            self._draw_batch()

    def read_now(self) -> None:
        """The next view is shown whole, whenever the last one was."""
        self._rows_at = self._read_at = 0.0

    def _make_room(self, view: View) -> None:
        """Two lines for each model, as far as they fit; only another number of models moves the picture."""
        most = MAX_MODEL_LINES if self.has_class("wide") else 2
        height = min(max(2 * len(view.models), 1), most)
        if height != self._model_height:
            self._model_height = height
            self._panels["models"].styles.height = height

    def draw(self) -> None:
        """Everything but the programs."""
        view, look = self._view, self.look
        if view is not None:
            size = self._panels["batch"].size
            self._batch_history = batch.history(view, size.width, size.height - batch.NUM_NUMBER_LINES, look)
        self._draw_batch()
        self._show_tabs()
        if view is None:
            return
        self._show("models", lambda w, h: header.model_lines(view, w, h))
        self._show("findings", lambda w, h: header.finding_lines(view, w, h))
        if self.page != PAGES[0]:
            self._show("page", lambda w, h: page_lines(self.page, view, w, h, look))
        if self.has_class("wide"):
            self._show("side-market", lambda w, h: market.lines(view, w, h, look))
            self._show("side-throughput", lambda w, h: service.lines(view, w, h, look))
            self._show("side-log", lambda w, h: findings.log(view, w, h))

    def _draw_batch(self) -> None:
        view, look = self._view, self.look
        self._show("status", lambda w, _: [header.status_line(view, w, self.connection, is_frozen=self.is_frozen)])
        if view is not None:
            self._show("batch", lambda w, _: [*batch.numbers(view, w, look), *self._batch_history])

    def show_page(self, page: str) -> None:
        self.page = page
        is_first = page == PAGES[0]
        self.programs.display = is_first
        self._panels["page"].display = not is_first
        # The whole history says all that the short one does.
        self.set_class(page == "batch", "on-batch")
        if is_first:
            self.programs.focus()
        self.call_after_refresh(self.draw)

    def ask(self, what: str) -> None:
        """Open the line in which the words of a search or a filter are typed."""
        self._asked = what
        self.query_one("#prompt-name", Label).update({"search": "/", "filter": "filter: "}[what])
        words = self.query_one("#words", Input)
        words.value = self.programs.order.filter if what == "filter" else ""
        self.query_one("#prompt").add_class("open")
        words.focus()

    def take_key(self, event: events.Key) -> bool:
        """Into the line of words, where the key belongs there. Its own keys never come this far."""
        if not self._asked:
            return False
        words = self.query_one("#words", Input)
        if event.key == "enter":
            self._done(Input.Submitted(words, words.value))
            return True
        return take_letter(words, event)

    def stop_asking(self) -> None:
        """A filter stays to be seen."""
        was_filter, self._asked = self._asked == "filter", ""
        if not (was_filter and self.programs.order.filter):
            self.query_one("#prompt").remove_class("open")
        self.programs.focus()

    def clear(self) -> None:
        self._asked = ""
        self.query_one("#prompt").remove_class("open")
        self.programs.focus()

    @on(Input.Changed, "#words")
    def _typed(self, event: Input.Changed) -> None:
        if self._asked == "filter" and self.is_current:
            self.app.call_later(self.app.run_action, f"filter_by({event.value!r})")
        elif self._asked == "search" and event.value:
            self.programs.find(event.value)

    @on(Input.Submitted, "#words")
    def _done(self, event: Input.Submitted) -> None:
        if self._asked == "search":
            self.app.call_later(self.app.run_action, f"search_for({event.value!r})")
        self.stop_asking()

    @on(ProgramsTable.Moved)
    def _show_tabs(self) -> None:
        place = self.programs.place if self.page == PAGES[0] else ""
        self._show("tabs", lambda w, _: tabs.lines(PAGES, self.page, place, w))

    @on(events.Click, "#tabs")
    def _choose_page(self, event: events.Click) -> None:
        page = tabs.page_at(PAGES, event.x)
        if page is not None:
            self.show_page(page)

    def _show(self, name: str, lines: object) -> None:
        panel = self._panels[name]
        assert callable(lines)
        width, height = panel.outer_size
        if panel.display and width and height:
            drawn: list[Line] = lines(width, height)
            panel.show(drawn)


def page_lines(page: str, view: View, width: int, height: int, look: Look) -> list[Line]:
    """Without its heading: the line of pages says that."""
    height += 1
    match page:
        case "batch":
            lines = batch.charts(view, width, height, look)
        case "market":
            lines = market.lines(view, width, height, look)
        case "throughput":
            lines = service.lines(view, width, height, look)
        case "parts":
            lines = parts.lines(view, width, height)
        case _:
            lines = findings.lines(view, width, height)
    return lines[1:]
