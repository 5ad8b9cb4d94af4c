"""The keys, as the bindings say them, and what the marks mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from pie_cli.monitor.columns import COLUMNS
from pie_cli.monitor.panels.look import heading
from pie_cli.monitor.text import Line, cut_line, line
from pie_cli.monitor.widgets.scrolled import ScrolledPanel

MARKS = (
    ("▶ running", "it is in the batches"),
    ("▷ computing", "its own code runs, or waits for its turn in its host"),
    ("… pages 3s", "it waits, since then: for batch, pages, credits, disk, grammar; for its client, a timer; or it"),
    ("", "is a consumer that takes nothing of what was generated; the column WHY says more"),
    ("◌ queued", "its launch waits for a host"),
    ("○ starting", "its code is made ready"),
    ("· idle", "between two of these"),
    ("‖ paused", "somebody has paused it"),
    ("█ ░ ·", "KV pages: used, cached, empty"),
    ("▓ █ ▒ ·", "tokens of a step: prefill, decode, draft, room"),
    ("‼ !", "the diagnosis: programs fail or stand still; programs are slower than they could be"),
    ("220µ", "micro-credits: millionths of a credit"),
    ("ada -chat", "a filter: rows with `ada` and without `chat`; `owner:`, `program:`, `state:`, `model:`, `host:`"),
)


class Help(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,f1", "leave", "Back", id="help.leave")]

    def __init__(self, bindings: Iterable[Binding]) -> None:
        super().__init__()
        self._keys = tuple(bindings)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog full"):
            yield ScrolledPanel(id="help")

    def on_mount(self) -> None:
        self.call_after_refresh(self._draw)

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        panel = self.query_one(ScrolledPanel)
        panel.show_all(help_lines([(self.app.get_key_display(each), each) for each in self._keys], panel.size.width))
        panel.focus()

    def action_leave(self) -> None:
        self.dismiss(None)


def help_lines(keys: Iterable[tuple[str, Binding]], width: int) -> list[Line]:
    lines = [heading("Keys", width, "Escape leaves")]
    for shown, binding in keys:
        about = binding.tooltip or binding.description
        lines.append(line((f"{shown:>10}  ", "bold"), about))
    lines.append(heading("Marks", width))
    lines += [line((f"{mark:>10}  ", "bold"), about) for mark, about in MARKS]
    lines.append(heading("Columns", width))
    lines += [line((f"{column.title:>10}  ", "bold"), column.about) for column in COLUMNS]
    lines += [line(""), line(("More: docs/monitor.md", "dim"))]
    return [cut_line(each, width) for each in lines]
