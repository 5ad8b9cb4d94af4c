"""All of one program, or what it said."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer

from pie_cli.monitor.engine import Engine
from pie_cli.monitor.panels import details as panel_of
from pie_cli.monitor.panels.look import heading
from pie_cli.monitor.text import Line
from pie_cli.monitor.view import Details, Row, View
from pie_cli.monitor.widgets.scrolled import ScrolledPanel
from pie_cli.monitor.widgets.straight import PanelScreen
from pie_engine.errors import PieError

POLL_S = 1.0
NUM_EVENTS = 500


class ProgramScreen(PanelScreen[None]):
    """Follows its program, also past its end, when it keeps showing what was last seen of it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "leave", "Back", id="program.leave", tooltip="Back to all programs"),
        Binding("l", "log", "Log", id="program.log", tooltip="Between all of it and only what it said"),
        Binding("k", "app.kill", "Kill", id="program.kill"),
        Binding("p", "app.pause", "Pause", id="program.pause"),
        Binding("r", "app.resume", "Resume", id="program.resume"),
        Binding("b", "app.bid", "Bid", id="program.bid"),
        Binding("e", "app.endow", "Endow", id="program.endow"),
        Binding("s", "app.picture", "SVG", show=False, id="program.picture"),
        Binding("space", "app.freeze", "Freeze", show=False, id="program.freeze", priority=True),
        Binding("t", "app.theme", "Theme", show=False, id="program.theme"),
        Binding("question_mark", "app.help", "Help", id="program.help", key_display="?"),
    ]

    def __init__(self, row: Row, engine: Engine, *, only_log: bool = False) -> None:
        super().__init__()
        self.row = row
        self.only_log = only_log
        self._engine = engine
        self._has_ended = False
        self._details = Details()

    def compose(self) -> ComposeResult:
        yield ScrolledPanel(id="program")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one(ScrolledPanel).focus()
        self.run_worker(self._poll(), exclusive=True)
        self.call_after_refresh(self.draw)

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def update_view(self, view: View) -> None:
        row = view.row_of(self.row.key)
        self._has_ended = row is None
        self.row = row or self.row
        self.draw()

    def draw(self) -> None:
        # A poll may come back when the screen is gone already.
        panel = self.query(ScrolledPanel).first() if self.is_attached and self.query(ScrolledPanel) else None
        if panel is not None and panel.size.width:
            panel.follows = self.only_log
            panel.show_all(self._lines(panel.size.width))

    def _lines(self, width: int) -> list[Line]:
        if self.only_log:
            return [heading(f"{self.row.label} {self.row.now.pid}", width), *panel_of.events(self._details, width)]
        return panel_of.lines(self.row, self._details, width, has_ended=self._has_ended)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_log(self) -> None:
        self.only_log = not self.only_log
        self.draw()

    async def _poll(self) -> None:
        """Contexts and events, as long as the screen is there."""
        while True:
            await self._ask()
            self.draw()
            await asyncio.sleep(POLL_S)

    async def _ask(self) -> None:
        pid, known = self.row.now.pid, self._details
        try:
            if not self._has_ended:
                self._details = replace(known, contexts=tuple(await self._engine.contexts_of(pid)), problem="")
            after = int(str(known.events[-1]["seq"])) if known.events else 0
            new = await self._engine.events(pid, after)
            self._details = replace(self._details, events=(*known.events, *new)[-NUM_EVENTS:], problem="")
        except PieError as error:
            self._details = replace(self._details, problem=error.message)
