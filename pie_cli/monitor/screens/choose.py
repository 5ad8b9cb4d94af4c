"""Which columns the table shows."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widgets import Label, SelectionList
from textual.widgets.selection_list import Selection

from pie_cli.monitor.columns import COLUMNS, FIXED


class Choices(SelectionList[str]):
    """Textual's marks both what is chosen and what is not, in two colours."""

    def render_line(self, y: int) -> Strip:
        left, mark, *rest = super().render_line(y)
        chosen = self.get_option_at_index(self.scroll_offset.y + y).value in self.selected
        return Strip([left, Segment("X" if chosen else " ", mark.style), *rest])


class ChooseColumns(ModalScreen[tuple[str, ...] | None]):
    """Gives the keys of those that are chosen, in the order of the list; None: as they were."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "Show these", id="columns.accept", priority=True),
        Binding("escape,q", "leave", "As they were", id="columns.leave"),
    ]

    def __init__(self, chosen: tuple[str, ...]) -> None:
        super().__init__()
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        # Those that are shown come first, in their order.
        order = {key: i for i, key in enumerate(self._chosen)}
        columns = sorted((each for each in COLUMNS if each.key != FIXED.key), key=lambda each: order.get(each.key, 99))
        with Vertical(classes="dialog tall"):
            yield Label("Columns: space chooses, Enter shows these, Escape leaves")
            yield Choices(
                *(
                    Selection(f"{each.title:<8} {each.about}".replace("[", r"\["), each.key, each.key in order)
                    for each in columns
                )
            )

    def action_accept(self) -> None:
        chosen = set(self.query_one(SelectionList).selected)
        kept = [key for key in self._chosen if key in chosen]
        added = [each.key for each in COLUMNS if each.key in chosen and each.key not in kept]
        self.dismiss((FIXED.key, *kept, *added))

    def action_leave(self) -> None:
        self.dismiss(None)
