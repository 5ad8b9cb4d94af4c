"""The line of pages: which there are, which is shown, and what of it is seen."""

from __future__ import annotations

from collections.abc import Sequence

from pie_cli.monitor.text import Line, Span, beside


def lines(pages: Sequence[str], shown: str, place: str, width: int) -> list[Line]:
    return [beside(tuple(_tab(i, page, page == shown) for i, page in enumerate(pages)), (Span(place, "dim"),), width)]


def page_at(pages: Sequence[str], x: int) -> str | None:
    """The page whose name is drawn at a cell of the line."""
    for i, page in enumerate(pages):
        size = len(_tab(i, page, is_shown=False).text)
        if x < size:
            return page
        x -= size
    return None


def _tab(i: int, page: str, is_shown: bool) -> Span:
    name = f"{i + 1} {page.capitalize()}"
    return Span(f"[{name}]", "selected") if is_shown else Span(f" {name} ", "title")
