"""Lines of styled text: what panels give and widgets draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from rich.cells import cell_len, chop_cells, set_cell_size


class Span(NamedTuple):
    """Text in one style of `STYLES`."""

    text: str
    style: str = ""


STYLES = ("dim", "bold", "title", "good", "warn", "bad", "accent", "prefill", "decode", "draft", "cursor", "selected")
"""Names of styles; monitor.tcss says how they look. Each is only ever a help: text or a mark says the same."""

Line: TypeAlias = tuple[Span, ...]
BARS = " ▁▂▃▄▅▆▇█"
ELLIPSIS = "…"


def line(*parts: str | Span | tuple[str, str]) -> Line:
    """A line of texts and spans."""
    return tuple(Span(part) if isinstance(part, str) else Span(*part) for part in parts)


def plain(spans: Line) -> str:
    return "".join(span.text for span in spans)


def width_of(spans: Line) -> int:
    """Cells: some characters take two, and some none."""
    return sum([len(text) if text.isascii() else cell_len(text) for text, _ in spans])


def cut(text: str, width: int) -> str:
    """At most `width` cells, the last one `…` where something is missing."""
    if (len(text) if text.isascii() else cell_len(text)) <= width:
        return text
    return set_cell_size(text, width - 1) + ELLIPSIS if width > 0 else ""


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` cells."""
    room = width - (len(text) if text.isascii() else cell_len(text))
    if room < 0:
        return cut(text, width)
    return " " * room + text if right else text + " " * room


def cut_line(spans: Line, width: int) -> Line:
    """At most `width` cells of it."""
    if width_of(spans) <= width:
        return spans
    kept: list[Span] = []
    room = width
    for span in spans:
        size = cell_len(span.text)
        if size > room:
            kept.append(Span(cut(span.text + ELLIPSIS, room), span.style))
            break
        kept.append(span)
        room -= size
    return tuple(kept)


def beside(left: Line, right: Line, width: int) -> Line:
    """`left` at the margin and `right` at the end of the line; where both do not fit, `left` is cut."""
    room = max(width - width_of(right) - 1, 0)
    shown = cut_line(left, room)
    return (*shown, Span(" " * (width - width_of(shown) - width_of(right))), *right)


def flowing(parts: Iterable[Line], width: int, gap: int = 2) -> list[Line]:
    """As many parts on a line as there is room for; none is broken."""
    drawn: list[Line] = []
    spans: Line = ()
    for part in parts:
        if spans and width_of(spans) + gap + width_of(part) > width:
            drawn.append(spans)
            spans = ()
        spans = (*spans, Span(" " * gap), *part) if spans else part
    return [*drawn, spans] if spans else drawn


def wrap(text: str, width: int) -> list[str]:
    """Lines of whole words; a word that is longer than a line is broken."""
    width = max(width, 8)
    drawn = [""]
    for word in text.split():
        if drawn[-1] and cell_len(drawn[-1]) + 1 + cell_len(word) <= width:
            drawn[-1] += f" {word}"
            continue
        pieces = chop_cells(word, width)
        drawn[-1:] = pieces if not drawn[-1] else [drawn[-1], *pieces]
    return drawn


def fractions(values: Sequence[float], width: int, total: float) -> list[int]:
    """How many of `width` cells each value gets of `total`: rounded so that together they are never too many.

    A value above zero gets a cell while there is one.
    """
    if total <= 0 or width <= 0:
        return [0] * len(values)
    cells: list[int] = []
    left = width
    for value in values:
        share = max(round(width * value / total), 1 if value > 0 else 0)
        cells.append(min(share, left))
        left -= cells[-1]
    return cells


def bar(parts: Iterable[tuple[float, str, str]], total: float, width: int, rest: str = "·") -> Line:
    """A bar of (value, mark, style); each part has a mark of its own, so that it is told without colour."""
    parts = list(parts)
    cells = fractions([value for value, _, _ in parts], width, total)
    spans = [Span(mark * count, style) for (_, mark, style), count in zip(parts, cells, strict=True) if count]
    return (*spans, Span(rest * (width - sum(cells)), "dim"))
