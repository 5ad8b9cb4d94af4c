"""A screen whose panels write the lines that have changed straight to the terminal.

Textual would compose them anew out of all that is on those lines, with messages and a timer for each widget, and that
is most of what a picture costs. What it would compose is the same, so it still does where the whole screen is drawn,
and where something may lie above a panel: a note, a hint, another screen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from textual._compositor import CompositorUpdate
from textual.errors import NoWidget
from textual.geometry import Region
from textual.screen import Screen
from textual.widget import Widget

if TYPE_CHECKING:
    from pie_cli.monitor.widgets.panel import Panel

T = TypeVar("T")
SYSTEM_CLASS, RACK_ID = "-textual-system", "textual-toastrack"
"""Of what Textual lays above everything, and which of it holds the notes."""


class Written(CompositorUpdate):
    """What the terminal is given, as it is."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._text = "".join(texts)

    def render_segments(self, console: Console) -> str:
        return self._text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self._text)


class PanelScreen(Screen[T]):
    """Collects what its panels repaint, and writes it at once."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: dict[Panel, set[int]] = {}

    def repaint(self, panel: Panel, numbers: Iterable[int]) -> None:
        """Lines of a panel that are other ones now. Soon, since more of them may belong to the same picture."""
        if not self._changed:
            self.call_next(self._write)
        self._changed.setdefault(panel, set()).update(numbers)

    def _write(self) -> None:
        changed, self._changed = self._changed, {}
        texts = []
        can_write = not self._is_covered
        for panel, numbers in changed.items():
            place = self._place_of(panel) if can_write else None
            if place is None:
                panel.compose_anew(numbers)
            else:
                texts += [panel.written(y, place) for y in sorted(numbers)]
        if texts:
            self.app._display(self, Written(texts))

    @property
    def _is_covered(self) -> bool:
        """Or may be, or nothing is drawn for now."""
        app = self.app
        if app.screen is not self or app._batch_count:
            return True
        return any(_is_shown(child) for child in self.children if child.has_class(SYSTEM_CLASS))

    def _place_of(self, panel: Panel) -> Region | None:
        """On the screen; None: not all of it is seen."""
        try:
            place = self.find_widget(panel)
        except NoWidget:
            return None
        return place.region if place.clip.contains_region(place.region) else None


def _is_shown(widget: Widget) -> bool:
    """A rack without notes is there, but shows nothing."""
    return widget.display and (widget.id != RACK_ID or bool(widget.children))
