"""What the user has chosen to see, beside the programs."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len

from pie_cli.monitor.series import SPAN_NAMES
from pie_cli.monitor.text import Line, Span
from pie_cli.monitor.view import ModelView, View


@dataclass(frozen=True, slots=True)
class Look:
    model: int = 0
    """Number of the model in the batch and market panels."""
    zoom: int = 0
    """Number of the time that histories show."""

    @property
    def span(self) -> str:
        return SPAN_NAMES[self.zoom]


def chosen(view: View, look: Look) -> ModelView | None:
    """The model that the user looks at; None where there is none."""
    return view.models[look.model % len(view.models)] if view.models else None


def heading(text: str, width: int, right: str = "") -> Line:
    """`── Text ─────────────── right ─`."""
    left, end = f"── {text} ", f" {right} ─" if right else ""
    return (Span("── ", "dim"), Span(text, "title"), Span(" " + "─" * (width - cell_len(left) - len(end)) + end, "dim"))


def labelled(label: str, value: str, style: str = "bold") -> tuple[Span, Span]:
    return Span(f"{label} ", "dim"), Span(value, style)
