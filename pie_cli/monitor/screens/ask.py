"""Two questions: yes or no, and a number."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label


class Confirm(ModalScreen[bool]):
    """Nothing happens unless the answer is yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", id="confirm.yes"),
        Binding("n,escape,q", "answer(False)", "No", id="confirm.no"),
    ]

    def __init__(self, question: str, yes: str) -> None:
        super().__init__()
        self._question = question
        self._yes = yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, markup=False)
            with Horizontal():
                yield Button(f"{self._yes} (y)", id="yes", variant="error", compact=True)
                yield Button("No (n)", id="no", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class AskNumber(ModalScreen[str | None]):
    """A number, or nothing where that is allowed; the text as it was typed, None: never mind."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Never mind", id="number.leave")]

    def __init__(self, question: str, about: str, *, may_be_empty: bool = False) -> None:
        super().__init__()
        self._question = question
        self._about = about
        self._may_be_empty = may_be_empty

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, markup=False)
            yield Input(placeholder="credits", id="number")
            yield Label(self._about, markup=False, id="about")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        problem = self._problem(event.value.strip())
        if problem:
            self.query_one("#about", Label).update(f"! {problem}")
        else:
            self.dismiss(event.value.strip())

    def _problem(self, text: str) -> str:
        if not text and self._may_be_empty:
            return ""
        try:
            value = float(text)
        except ValueError:
            return f"`{text}` is no number" if text else "type a number; Escape leaves"
        return "" if 0 <= value < 1e12 else "from 0 to a million million"

    def action_leave(self) -> None:
        self.dismiss(None)
