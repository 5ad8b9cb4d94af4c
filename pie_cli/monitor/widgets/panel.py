"""A widget that shows lines, and repaints no more cells than have changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from pie_cli.monitor.text import STYLES, Line

PREFIX = "panel--"


class Panel(Widget):
    """`show` gives it other lines. Those beyond its height are not shown. It has neither border nor padding.

    Textual would compose each line anew with borders, links and selections, of which there are none here; lines that
    have not changed are kept as they were painted. A picture costs a third of what it did.
    """

    COMPONENT_CLASSES = {PREFIX + name for name in STYLES}  # noqa: RUF012 - as Textual declares it
    ALLOW_SELECT = False
    can_focus = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: Sequence[Line] = ()
        self._rich_styles: dict[str, Style] = {}
        self._painted: dict[int, tuple[Line, Strip]] = {}
        self._painted_width = 0

    def show(self, lines: Sequence[Line]) -> None:
        before, self._lines = self._lines, lines
        width, height = self.size
        changed = [
            _changed(y, old, new, width)
            for y, (old, new) in enumerate(zip_longest(before[:height], lines[:height]))
            if old != new
        ]
        if changed:
            self.refresh(*changed)

    @property
    def lines(self) -> Sequence[Line]:
        return self._lines

    def render_lines(self, crop: Region) -> list[Strip]:
        width = self.size.width
        if width != self._painted_width:
            self._painted, self._painted_width = {}, width
        strips = [self.render_line(y) for y in crop.line_range]
        if crop.x or crop.width != width:
            return [strip.crop(crop.x, crop.right) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        spans = self._lines[y] if y < len(self._lines) else ()
        known = self._painted.get(y)
        if known is not None and known[0] == spans:
            return known[1]
        strip = self._paint(spans)
        self._painted[y] = (spans, strip)
        return strip

    def _paint(self, spans: Line) -> Strip:
        styles = self._rich_styles or self._resolve()
        strip = Strip([Segment(text, styles[style]) for text, style in spans if text])
        strip = strip.adjust_cell_length(self.size.width, styles[""])
        if self.app.no_color:
            background = self.background_colors[1]
            for each in self.get_line_filters():
                strip = strip.apply_filter(each, background)
        return strip

    def notify_style_update(self) -> None:
        self._rich_styles, self._painted = {}, {}
        super().notify_style_update()

    def _resolve(self) -> dict[str, Style]:
        base = self.rich_style
        styles = {name: base + self.get_component_rich_style(PREFIX + name, partial=True) for name in STYLES}
        self._rich_styles = styles | {"": base}
        return self._rich_styles


def _changed(y: int, old: Line | None, new: Line | None, width: int) -> Region:
    """The cells of a line from the first that differs to the last one."""
    if not old or not new:
        return Region(0, y, width, 1)
    x = 0
    for before, now in zip(old, new, strict=False):
        if before != now:
            break
        x += cell_len(now.text)
    old_end, new_end = (sum(cell_len(span.text) for span in spans) for spans in (old, new))
    # A shared end stays only where it was.
    end = _shared_end(old, new) if old_end == new_end else 0
    return Region(x, y, max(max(old_end, new_end) - x - end, 1), 1)


def _shared_end(old: Line, new: Line) -> int:
    """How many cells the last spans take that are the same in both."""
    end = 0
    for before, now in zip(reversed(old), reversed(new), strict=False):
        if before != now:
            break
        end += cell_len(now.text)
    return end
