"""The picture without colours, for `NO_COLOR` (https://no-color.org): the terminal's own two are used.

Textual's own filter makes greys, on a ground that is nearly black whatever the terminal's is.
"""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

LOUD = 0.15
"""Difference in brightness (0 to 1) from the ground around it from which on a ground stands for something, as that of
the chosen line of a list."""


class Colourless(LineFilter):
    """Leaves bold, underlined and reversed text; what has a ground of its own is reversed."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(text, None if style is None else colourless(style, background), control)
            for text, style, control in segments
        ]


@lru_cache(1024)
def colourless(style: Style, background: Color) -> Style:
    """background: of the widget that the text is in."""
    bare = style.without_color + Style(reverse=bool(style.reverse) != _is_loud(style, background))
    return bare + Style.from_meta(style.meta) if style.meta else bare


def _is_loud(style: Style, background: Color) -> bool:
    if style.bgcolor is None:
        return False
    return abs(Color.from_rich_color(style.bgcolor).brightness - background.brightness) > LOUD
