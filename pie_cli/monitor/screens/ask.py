"""Two questions: yes or no, and a number."""

from __future__ import annotations

from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label


def take_letter(line: Input, event: events.Key) -> bool:
    """One that was typed before `line` was there, into it."""
    if event.is_printable and event.character:
        line.insert_text_at_cursor(event.character)
        return True
    return False


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
        self._early: list[events.Key] = []
        """Keys that came before its line did."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, markup=False)
            # What was typed before it had the focus stays.
            yield Input(placeholder="credits", id="number", select_on_focus=False)
            yield Label(self._about, markup=False, id="about")

    def on_mount(self) -> None:
        early, self._early = self._early, []
        for event in early:
            self._take(event)

    def take_key(self, event: events.Key) -> bool:
        """Typed in one go with the key that opened it. Keys of its line never come this far."""
        if not self.is_mounted:
            self._early.append(event)
            return True
        return self._take(event)

    def _take(self, event: events.Key) -> bool:
        line = self.query_one("#number", Input)
        if event.key == "enter":
            self._submitted(Input.Submitted(line, line.value))
            return True
        return take_letter(line, event)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        problem = self._problem(event.value.strip())
        if problem:
            self.query_one("#about", Label).update(f"! {problem}")
            event.input.action_select_all()
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
