"""What the terminal shows after many small changes is what it would show if the whole screen were drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.cells import cell_len, set_cell_size
from textual._compositor import CompositorUpdate
from textual.screen import Screen

from pie_cli.monitor.widgets.straight import Written
from pie_engine.errors import Unsupported
from tests.tui.monitor_rig import Rig, shown

SEQUENCE = re.compile(r"\x1b\[([\d;]*)([Hm])|(\n)|(.)", re.DOTALL)


class Terminal:
    """Cells with a character and the codes of its style."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}

    def write(self, text: str) -> None:
        x = y = 0
        style = ""
        for code, kind, _, character in SEQUENCE.findall(text):
            if kind == "H":
                y, x = (int(number) for number in code.split(";"))
            elif kind == "m":
                style = "" if code == "0" else code
            elif character:
                assert character != "\x1b", "a sequence that this terminal does not know"
                width = cell_len(character)
                for i in range(width):
                    self.cells[y, x + i] = (character if i == 0 else "", style)
                x += width


@contextmanager
def watched(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Terminal, list[type]]]:
    """The terminal of an app, and the kinds of updates that it was given."""
    app, terminal, kinds = rig.app, Terminal(), []
    display = type(app)._display

    def noted(self: object, screen: Screen[object], update: object) -> None:
        if isinstance(update, CompositorUpdate) and screen is app.screen:
            kinds.append(type(update))
            terminal.write(update.render_segments(app.console))
        display(self, screen, update)  # type: ignore[arg-type]

    monkeypatch.setattr(type(app), "_display", noted)
    app.screen.refresh()
    yield terminal, kinds


def whole(rig: Rig) -> Terminal:
    terminal = Terminal()
    terminal.write(rig.app.screen._compositor.render_full_update().render_segments(rig.app.console))
    return terminal


def differences(rig: Rig, terminal: Terminal) -> list[tuple[object, ...]]:
    wanted = whole(rig).cells
    return [(at, terminal.cells.get(at), wanted[at]) for at in wanted if terminal.cells.get(at) != wanted[at]][:5]


WITHOUT_COLOURS = {"", "1", "2", "3", "4", "7", "9"}
"""Bold, faint, italic, underlined, reversed, struck through (ECMA-48, SGR)."""


def codes(rig: Rig) -> set[str]:
    """Of all styles on the screen."""
    return {code for _, style in whole(rig).cells.values() for code in style.split(";")}


KEYS = ("down", "pagedown", "g", "o", "z", "3", "2", "6", "1", "right", "space", "space", "t", "enter", "escape")


@pytest.mark.parametrize(
    "size",
    [(80, 24), pytest.param((200, 60), marks=pytest.mark.slow), (20, 5)],
    ids=lambda size: "x".join(map(str, size)),
)
async def test_small_changes_leave_what_a_whole_draw_gives(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shown(tmp_path, programs=30, size=size, snapshots=4) as rig:
        with watched(rig, monkeypatch) as (terminal, kinds):
            await rig.settle()
            for key in KEYS:
                await rig.press(key)
                await rig.feed(2)
                assert differences(rig, terminal) == [], key
            assert Written in kinds


async def test_what_lies_above_the_panels_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shown(tmp_path, programs=30, snapshots=4) as rig:
        with watched(rig, monkeypatch) as (terminal, kinds):
            await rig.settle()
            rig.engine.refusal = Unsupported("a note that lies above the programs")
            await rig.press("r")
            kinds.clear()
            await rig.feed(3)
            assert "a note that lies above" in rig.text
            assert differences(rig, terminal) == []
            assert Written not in kinds
            rig.app.clear_notifications()
            await rig.settle()
            await rig.feed(3)
            assert Written in kinds, "it has gone"
            assert differences(rig, terminal) == []


async def test_wide_characters_stay_in_their_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.loads.PROGRAMS", ("日本語のプログラム", "café-ünïcode", "x" * 300))
    async with shown(tmp_path, programs=9, size=(100, 30), snapshots=4) as rig:
        with watched(rig, monkeypatch) as (terminal, _):
            await rig.settle()
            for key in ("down", "6", "3", "1", "down"):
                await rig.press(key)
                await rig.feed(2)
                assert differences(rig, terminal) == []
        lines = rig.text.splitlines()
        at = next(i for i, text in enumerate(lines) if "BALANCE" in text)
        table = [text for text in lines[at + 1 :] if "日本語" in text or "café" in text]
        assert len(table) >= 4
        end = lines[at].index("BALANCE") + len("BALANCE")
        assert all(set_cell_size(text, end)[-1].isdigit() for text in table), "numbers end where their name does"


async def test_without_colours_nothing_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with shown(tmp_path, programs=9, snapshots=4) as rig:
        with watched(rig, monkeypatch) as (terminal, kinds):
            await rig.settle()
            await rig.press("down")
            await rig.feed(2)
            assert Written in kinds
            assert differences(rig, terminal) == []
        for key in ("question_mark", "escape", "k", "escape", "ctrl+p", "escape", "enter"):
            await rig.press(key)
            assert codes(rig) <= WITHOUT_COLOURS, key


async def test_without_colours_it_still_shows_what_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with shown(tmp_path, programs=9, snapshots=4) as rig:
        for key in ("c", "down", "space"):
            await rig.press(key)
        assert codes(rig) <= WITHOUT_COLOURS
        cells = whole(rig).cells
        (y,) = {y for (y, x), (_, style) in cells.items() if "7" in style.split(";") and 10 < x < 60}
        lines = rig.text.splitlines()
        assert "▐ ▌ STATE" in lines[y - 1], "where one is, and that it is not chosen any more"
        assert "▐X▌ PROGRAM" in lines[y - 2]
