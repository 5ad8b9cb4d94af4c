"""The monitor: takes updates from a source, and gives each view to the screen that is shown."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from textual import events, on
from textual.app import App, SystemCommand
from textual.filter import LineFilter
from textual.screen import Screen

from pie_cli.monitor import preferences
from pie_cli.monitor.colourless import Colourless
from pie_cli.monitor.engine import Engine
from pie_cli.monitor.keys import BINDINGS as KEYS
from pie_cli.monitor.keys import PAGE_NAMES, PAGES
from pie_cli.monitor.listing import Order
from pie_cli.monitor.panels.header import CONNECTED
from pie_cli.monitor.panels.look import Look
from pie_cli.monitor.picture import portable
from pie_cli.monitor.preferences import Preferences
from pie_cli.monitor.recording import Recorder
from pie_cli.monitor.screens.ask import AskNumber, Confirm
from pie_cli.monitor.screens.choose import ChooseColumns
from pie_cli.monitor.screens.help import Help
from pie_cli.monitor.screens.main import MainScreen
from pie_cli.monitor.screens.program import ProgramScreen
from pie_cli.monitor.series import SPANS_S
from pie_cli.monitor.source import Trouble, Update
from pie_cli.monitor.state import Reducer
from pie_cli.monitor.view import Row
from pie_cli.monitor.widgets.programs import TABLE_KEYS, ProgramsTable
from pie_engine.errors import PieError
from pie_engine.protocol.credits import counted
from pie_engine.protocol.stats import Snapshot

DRAW_S = 0.1
"""At most about ten pictures a second, however many snapshots come."""
EARLY_S = 0.02
"""A picture may be so much too early: snapshots that come ten times a second need no timer, which costs more than some
of their pictures."""
SAVED_S = 60.0
"""Between two looks at the saved contexts."""
MAX_HELD = 600
"""Snapshots that wait while the picture is frozen; of more the newest are kept."""
THEMES = ("textual-dark", "textual-light")


class MonitorApp(App[None]):
    """`updates`: what `source` gives. `home`: where preferences are kept. Leaving it touches nothing of the engine."""

    TITLE = "Pie"
    CSS_PATH = "monitor.tcss"
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self, updates: AsyncIterator[Update], engine: Engine, home: Path, *, recorder: Recorder | None = None
    ) -> None:
        super().__init__()
        self.engine = engine
        self.reducer = Reducer()
        self._updates = updates
        self._home = home
        self._recorder = recorder
        self._has_said_problem = False
        self._held: deque[Snapshot] = deque(maxlen=MAX_HELD)
        self._is_frozen = False
        self.problem: PieError | None = None
        """Why it has ended by itself: a recording that cannot be read."""
        self._search = ""
        self._drawn_at = 0.0
        self._will_draw = False
        chosen = preferences.load(home)
        order = Order(chosen.sort, chosen.is_reversed, "", chosen.is_grouped)
        self.main = MainScreen(chosen.columns, order, Look(zoom=chosen.zoom))
        self._theme_at_start = chosen.theme
        self._colourless = Colourless()

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [self._colourless] if self.no_color else super().get_line_filters()

    # Updates.

    async def on_mount(self) -> None:
        self.theme = self._theme_at_start if self._theme_at_start in self.available_themes else THEMES[0]
        await self.push_screen(self.main)
        self.run_worker(self._follow(), exit_on_error=True)
        self.run_worker(self._look_at_saved())

    async def _follow(self) -> None:
        try:
            async for update in self._updates:
                if isinstance(update, Trouble):
                    self.set_connection(update.text)
                else:
                    self.take(update)
        except PieError as error:
            self.problem = error
            self.exit()

    async def _look_at_saved(self) -> None:
        """Saved contexts, of which snapshots say nothing."""
        while True:
            # Not there, not allowed, or a recording: then nothing is said of them.
            with contextlib.suppress(PieError):
                self.reducer.note_saved(await self.engine.contexts())
            await asyncio.sleep(SAVED_S)

    def take(self, snapshot: Snapshot) -> None:
        """One more snapshot; it is drawn soon."""
        self._record(snapshot)
        self.set_connection(CONNECTED)
        if self._is_frozen:
            self._held.append(snapshot)
            return
        self.reducer.apply(snapshot)
        self._draw_soon()

    def set_connection(self, text: str) -> None:
        if text != self.main.connection:
            self.main.connection = text
            self.draw()

    def draw(self) -> None:
        """The newest view, now."""
        self._will_draw = False
        self._drawn_at = time.monotonic()
        view = self.reducer.view
        if not self.is_running or not self.screen_stack or not self.main.is_mounted:
            return
        if view is None:
            self.main.draw()
            return
        if isinstance(self.screen, ProgramScreen):
            self.screen.update_view(view)
        elif self.screen is self.main:
            self.main.update_view(view)

    def _draw_soon(self) -> None:
        wait_s = DRAW_S - (time.monotonic() - self._drawn_at)
        if wait_s <= EARLY_S:
            self.draw()
        elif not self._will_draw:
            self._will_draw = True
            self.set_timer(wait_s, self.draw)

    def _record(self, snapshot: Snapshot) -> None:
        if self._recorder is None:
            return
        self._recorder.write(snapshot)
        if self._recorder.problem and not self._has_said_problem:
            self._has_said_problem = True
            self.notify(self._recorder.problem, severity="error", markup=False)

    # What is shown.

    def action_page(self, page: str) -> None:
        self.main.show_page(page)

    def action_next_page(self, step: int) -> None:
        self.main.show_page(PAGES[(PAGES.index(self.main.page) + step) % len(PAGES)])

    def action_search(self) -> None:
        self.main.show_page(PAGES[0])
        self.main.ask("search")

    def action_filter(self) -> None:
        self.main.show_page(PAGES[0])
        self.main.ask("filter")

    def on_key(self, event: events.Key) -> None:
        """Letters that were typed before the line for them was there: they are no commands."""
        screen = self.screen
        if isinstance(screen, AskNumber | MainScreen) and screen.take_key(event):
            event.prevent_default()

    def action_search_for(self, words: str) -> None:
        self._search = words
        if words and not self.main.programs.find(words):
            self.notify(f"no program has `{words}`", severity="warning", markup=False)

    def action_filter_by(self, words: str) -> None:
        self._set_order(replace(self._order, filter=words))

    def action_find(self, step: int) -> None:
        if self._search and not self.main.programs.find(self._search, step):
            self.notify(f"no program has `{self._search}`", severity="warning", markup=False)

    def action_clear(self) -> None:
        self.main.clear()
        self._search = ""
        self._set_order(replace(self._order, filter=""))

    def action_sort(self, step: int) -> None:
        self.main.programs.sort_by_next(step)

    def action_invert(self) -> None:
        self._set_order(replace(self._order, is_reversed=not self._order.is_reversed))

    def action_group(self) -> None:
        self._set_order(replace(self._order, is_grouped=not self._order.is_grouped))

    def action_columns(self) -> None:
        def chosen(columns: tuple[str, ...] | None) -> None:
            if columns is not None:
                self.main.programs.set_columns(columns)
                self._keep()

        self.push_screen(ChooseColumns(self.main.programs.columns), chosen)

    def action_zoom(self) -> None:
        look = self.main.look
        self._look_at(replace(look, zoom=(look.zoom + 1) % len(SPANS_S)))
        self._keep()

    def action_model(self) -> None:
        look = self.main.look
        num_models = len(self.reducer.view.models) if self.reducer.view else 1
        self._look_at(replace(look, model=(look.model + 1) % max(num_models, 1)))

    def action_freeze(self) -> None:
        self._is_frozen = self.main.is_frozen = not self._is_frozen
        if not self._is_frozen:
            while self._held:
                self.reducer.apply(self._held.popleft())
        # All of the picture is of one moment: there is time to read it.
        self.main.read_now()
        self.draw()

    def action_theme(self) -> None:
        self.theme = THEMES[not THEMES.index(self.theme)] if self.theme in THEMES else THEMES[0]

    def watch_theme(self, theme: str) -> None:
        if self.main.is_mounted:
            self._keep()

    def action_help(self) -> None:
        self.push_screen(Help([*KEYS, *TABLE_KEYS]))

    def action_leave(self) -> None:
        self.exit()

    # What is done to programs.

    def action_log(self) -> None:
        self._with_chosen(lambda row: self.push_screen(ProgramScreen(row, self.engine, only_log=True)))

    @on(ProgramsTable.Opened)
    def _open(self, event: ProgramsTable.Opened) -> None:
        self.push_screen(ProgramScreen(event.row, self.engine))

    def action_kill(self) -> None:
        self._with_chosen(lambda row: self._confirm(row, "Kill", "End", self.engine.terminate, "is told to end"))

    def action_pause(self) -> None:
        self._with_chosen(lambda row: self._confirm(row, "Pause", "Pause", self.engine.pause, "is paused"))

    def action_resume(self) -> None:
        self._with_chosen(lambda row: self._do(row, self.engine.resume(row.now.pid), "goes on"))

    def action_bid(self) -> None:
        def typed(row: Row, text: str | None) -> None:
            if text is not None:
                credits = float(text) if text else None
                said = f"bids {text}" if text else "bids by itself again"
                self._do(row, self.engine.bid(row.now.pid, credits), said)

        about = "for a page and a step; nothing: the program bids by itself; Escape: never mind"
        self._with_chosen(
            lambda row: self.push_screen(
                AskNumber(f"Bid for {_name(row)}, in credits:", about, may_be_empty=True), lambda text: typed(row, text)
            )
        )

    def action_endow(self) -> None:
        def typed(row: Row, text: str | None) -> None:
            if text:
                self._do(row, self.engine.endow(row.now.pid, float(text)), f"got {counted(text)}")

        about = "on top of what it has; Escape: never mind"
        self._with_chosen(
            lambda row: self.push_screen(
                AskNumber(f"Give {_name(row)} how many credits?", about), lambda text: typed(row, text)
            )
        )

    def _with_chosen(self, do: Callable[[Row], object]) -> None:
        row = self.screen.row if isinstance(self.screen, ProgramScreen) else self.main.programs.chosen
        if row is None:
            self.notify("choose a program first", severity="warning")
        else:
            do(row)

    def _confirm(self, row: Row, verb: str, yes: str, act: Callable[[str], Awaitable[object]], said: str) -> None:
        def answered(is_yes: bool | None) -> None:
            if is_yes:
                self._do(row, act(row.now.pid), said)

        self.push_screen(Confirm(f"{verb} {_name(row)} of {row.now.user}?", yes), answered)

    def _do(self, row: Row, work: Awaitable[object], said: str) -> None:
        async def act() -> None:
            try:
                await work
            except PieError as error:
                text = f"{error.message}\n{error.hint}" if error.hint else error.message
                self.notify(text, title="It did not work", severity="error", markup=False)
            else:
                self.notify(f"{_name(row)} {said}", markup=False)

        self.run_worker(act())

    # Files.

    def action_picture(self) -> None:
        self._write(".svg", portable(self.export_screenshot()).encode())

    def action_json(self) -> None:
        view = self.reducer.view
        if view is not None:
            self._write(".json", msgspec.json.format(msgspec.json.encode(view.snapshot), indent=2))

    def _write(self, suffix: str, data: bytes) -> None:
        path = Path(f"pie-{time.strftime('%Y%m%d-%H%M%S')}{suffix}")
        try:
            path.write_bytes(data)
        except OSError as error:
            self.notify(f"cannot write {path.absolute()}: {error.strerror}", severity="error", markup=False)
        else:
            self.notify(f"saved {path.absolute()}", markup=False)

    # For the command palette.

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        for binding in KEYS:
            if not binding.system:
                about = f"{binding.tooltip} ({self.get_key_display(binding)})"
                name = PAGE_NAMES.get(binding.description.lower(), binding.description)
                yield SystemCommand(name, about, lambda action=binding.action: self._run_soon(action))

    def _run_soon(self, action: str) -> None:
        self.call_later(self.run_action, action)

    # Preferences.

    @property
    def _order(self) -> Order:
        return self.main.programs.order

    def _set_order(self, order: Order) -> None:
        if order != self._order:
            self.main.programs.set_order(order)

    @on(ProgramsTable.Ordered)
    def _ordered(self) -> None:
        self._keep()

    def _look_at(self, look: Look) -> None:
        self.main.look = look
        self.main.draw()

    def _keep(self) -> None:
        order = self._order
        chosen = Preferences(
            self.main.programs.columns,
            order.sort,
            order.is_reversed,
            order.is_grouped,
            self.main.look.zoom,
            self.theme,
        )
        preferences.save(self._home, chosen)


def _name(row: Row) -> str:
    return f"{row.now.program} ({row.now.pid[:8]})"
