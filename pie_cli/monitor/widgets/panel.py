"""A widget that shows lines, and repaints no more of them than have changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from pie_cli.monitor.text import STYLES, Line, width_of
from pie_cli.monitor.widgets.straight import PanelScreen

PREFIX = "panel--"


class Panel(Widget):
    """`show` gives it other lines. Those beyond its height are not shown. It has neither border nor padding.

    Textual would compose each line anew with borders, links and selections, of which there are none here; lines that
    have not changed are kept as they were painted. Changed lines are painted whole: Textual writes them from their
    beginning anyway, and would paint and encode anew what it cuts off behind the last change.
    """

    COMPONENT_CLASSES = {PREFIX + name for name in STYLES}  # noqa: RUF012 - as Textual declares it
    ALLOW_SELECT = False
    can_focus = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: Sequence[Line] = ()
        self._rich_styles: dict[str, Style] = {}
        self._codes: dict[str, str] = {}
        """What the terminal is given for text in each style, with `%s` for the text."""
        self._painted: dict[int, Strip] = {}
        """By line. Those that have changed since are not in it."""
        self._width = 0
        """As painted. Textual looks for a size all over the screen."""

    def show(self, lines: Sequence[Line]) -> None:
        before, self._lines = self._lines, lines
        changed = [y for y, (old, new) in enumerate(zip_longest(before, lines)) if old != new]
        for y in changed:
            self._painted.pop(y, None)
        height = self.outer_size.height
        if seen := [y for y in changed if y < height]:
            self._repaint(seen)

    def _repaint(self, numbers: list[int]) -> None:
        screen = self.screen
        if isinstance(screen, PanelScreen):
            screen.repaint(self, numbers)
        else:
            self.compose_anew(numbers)

    def compose_anew(self, numbers: Iterable[int]) -> None:
        """Lines, in Textual's way, with what lies above them."""
        width, height = self.size
        if regions := [Region(0, y, width, count) for y, count in runs(y for y in sorted(numbers) if y < height)]:
            self.refresh(*regions)

    def written(self, y: int, place: Region) -> str:
        """A line as the terminal takes it, whole. `place`: of the panel on the screen."""
        if y >= place.height:
            return ""
        begin = f"\x1b[{place.y + y + 1};{place.x + 1}H"
        spans = self._lines[y] if y < len(self._lines) else ()
        room = place.width - width_of(spans)
        if room < 0:
            return begin + self.render_line(y).render(self.app.console)
        codes = self._codes or self._resolve_codes()
        return begin + "".join([codes[style] % text for text, style in spans if text]) + codes[""] % (" " * room)

    @property
    def lines(self) -> Sequence[Line]:
        return self._lines

    def render_lines(self, crop: Region) -> list[Strip]:
        width = self.size.width
        if width != self._width:
            self._painted, self._width = {}, width
        strips = [self.render_line(y) for y in crop.line_range]
        if crop.x or crop.width != width:
            return [strip.crop(crop.x, crop.right) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        strip = self._painted.get(y)
        if strip is None:
            strip = self._painted[y] = self._paint(self._lines[y] if y < len(self._lines) else ())
        return strip

    def _paint(self, spans: Line) -> Strip:
        styles, width = self._rich_styles or self._resolve(), self._width
        segments = [Segment(text, styles[style]) for text, style in spans if text]
        room = width - width_of(spans)
        if room > 0:
            segments.append(Segment(" " * room, styles[""]))
        return Strip(segments, max(width - room, width)).adjust_cell_length(width)

    def notify_style_update(self) -> None:
        self._rich_styles, self._codes, self._painted = {}, {}, {}
        super().notify_style_update()

    def _resolve(self) -> dict[str, Style]:
        base = self.rich_style
        styles = {name: base + self.get_component_rich_style(PREFIX + name, partial=True) for name in STYLES}
        self._rich_styles = {name: self._filtered(style) for name, style in (styles | {"": base}).items()}
        return self._rich_styles

    def _filtered(self, style: Style) -> Style:
        """Without colours where there are to be none."""
        if not self.app.no_color:
            return style
        strip = Strip([Segment("x", style)])
        for each in self.get_line_filters():
            strip = strip.apply_filter(each, self.background_colors[1])
        return next(iter(strip)).style or Style()

    def _resolve_codes(self) -> dict[str, str]:
        styles, console = self._rich_styles or self._resolve(), self.app.console
        self._codes = {name: Strip([Segment("%s", style)]).render(console) for name, style in styles.items()}
        return self._codes


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Growing numbers as (first, how many follow one another)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        first, count = found[-1] if found else (number, 0)
        if number == first + count:
            found[-1:] = [(first, count + 1)]
        else:
            found.append((number, 1))
    return found
