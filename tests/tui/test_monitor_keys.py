"""Every key of the monitor, pressed as a user does."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from textual.geometry import Region

from pie_cli.monitor import preferences
from pie_cli.monitor.keys import BINDINGS
from pie_cli.monitor.screens.ask import AskNumber, Confirm
from pie_cli.monitor.screens.choose import ChooseColumns
from pie_cli.monitor.screens.help import Help
from pie_cli.monitor.screens.program import ProgramScreen
from pie_cli.monitor.text import plain
from pie_cli.monitor.widgets.panel import Panel
from pie_cli.monitor.widgets.programs import TABLE_KEYS
from pie_engine.errors import Unsupported
from pie_engine.protocol.stats import ContextState, Snapshot
from tests.tui.monitor_rig import Rig, shown

Check = Callable[[Rig], Awaitable[None]]
CHECKS: dict[str, Check] = {}


def key(*names: str) -> Callable[[Check], Check]:
    def note(check: Check) -> Check:
        CHECKS.update(dict.fromkeys(names, check))
        return check

    return note


def chosen(rig: Rig) -> str:
    row = rig.app.main.programs.chosen
    assert row is not None
    return row.now.pid


@key("up", "down", "pageup", "pagedown", "home", "end")
async def moving(rig: Rig) -> None:
    await rig.press("home", "down", "down", "up")
    assert rig.app.main.programs._cursor == 1
    first = chosen(rig)
    assert first[:8] in rig.text
    await rig.press("end")
    assert rig.app.main.programs._cursor == 19
    assert "9-20/20" in rig.text or "10-20/20" in rig.text
    await rig.press("pageup", "pagedown", "home")
    assert rig.app.main.programs._cursor == 0


@key("left", "right")
async def columns_aside(rig: Rig) -> None:
    assert "PROGRAM " in rig.text
    await rig.press("right")
    assert "PROGRAM " not in rig.text
    assert "PID " in rig.text
    await rig.press("left")
    assert "PROGRAM " in rig.text


@key("1", "2", "3", "4", "5", "6", "tab", "shift+tab")
async def pages(rig: Rig) -> None:
    marks = {"2": "step ms", "3": "rent so far", "4": "TTFT, arrival", "5": "host-0", "6": "what to do:"}
    for page, mark in marks.items():
        await rig.press(page)
        assert mark in rig.text, page
    await rig.press("tab")
    assert "[1 Programs]" in rig.text
    await rig.press("shift+tab")
    assert "[6 Diagnosis]" in rig.text
    await rig.press("1")
    assert "PROGRAM " in rig.text


@key("slash", "n", "N")
async def searching(rig: Rig) -> None:
    await rig.press("slash", *"deb", "enter")
    assert "debate" in _row(rig)
    first = chosen(rig)
    await rig.press("n")
    second = chosen(rig)
    assert second != first
    assert "debate" in _row(rig)
    await rig.press("N")
    assert chosen(rig) == first
    await rig.press("slash", *"zz", "enter")
    assert "no program has `zz`" in rig.notes


@key("f", "escape")
async def filtering(rig: Rig) -> None:
    await rig.press("f", *"ada", "enter")
    listed = rig.app.main.programs.listed
    assert 0 < len(listed) < 20
    assert " of 20" in rig.text
    assert "filter: ada" in rig.text
    await rig.press("escape")
    assert len(rig.app.main.programs.listed) == 20
    assert "filter:" not in rig.text


@key("o", "O", "i")
async def ordering(rig: Rig) -> None:
    before = rig.app.main.programs.order.sort
    await rig.press("o")
    assert rig.app.main.programs.order.sort != before
    assert "▼" in rig.text
    await rig.press("O", "i")
    assert rig.app.main.programs.order.sort == before
    assert "▲" in rig.text
    await rig.press("i")


@key("g")
async def grouping(rig: Rig) -> None:
    await rig.press("home", "g")
    assert " tok/s  balance " in rig.text, "the line of the first owner, though the cursor is below it"
    await rig.press("g")
    assert " tok/s  balance " not in rig.text


@key("c")
async def choosing_columns(rig: Rig) -> None:
    await rig.press("c")
    assert isinstance(rig.app.screen, ChooseColumns)
    assert "space chooses" in rig.text
    await rig.press("space", "enter")
    assert "PROGRAM " not in rig.text
    await rig.press("c")
    await rig.press("escape")
    assert "PROGRAM " not in rig.text
    rig.app.main.programs.set_columns(preferences.DEFAULT)


@key("z")
async def zooming(rig: Rig) -> None:
    assert "2 min (z)" in rig.text
    await rig.press("z")
    assert "20 min (z)" in rig.text
    await rig.press("z")
    assert "1 h (z)" in rig.text
    await rig.press("z")


@key("m")
async def other_model(rig: Rig) -> None:
    await rig.press("m")
    assert rig.app.main.look.model == 0, "there is one"


@key("space")
async def freezing(rig: Rig) -> None:
    await rig.press("space")
    view = rig.app.reducer.view
    await rig.feed(3)
    assert rig.app.reducer.view is view
    assert "FROZEN" in rig.text
    await rig.press("space")
    assert rig.app.reducer.view is not view
    assert rig.app.reducer.view is not None
    assert rig.app.reducer.view.snapshot == rig.load.last
    assert "FROZEN" not in rig.text


@key("k")
async def killing(rig: Rig) -> None:
    pid = chosen(rig)
    await rig.press("k", "n")
    assert rig.engine.asked == []
    await rig.press("k")
    assert isinstance(rig.app.screen, Confirm)
    assert "policy market" in rig.text, "the picture is still there below the question"
    # The answer that does nothing is the one that Enter gives.
    await rig.press("enter")
    assert rig.engine.asked == []
    await rig.press("k", "y")
    assert rig.engine.asked == [("terminate", pid)]
    assert "is told to end" in rig.notes


@key("p", "r")
async def pausing(rig: Rig) -> None:
    pid = chosen(rig)
    await rig.press("p", "y", "r")
    assert rig.engine.asked == [("pause", pid), ("resume", pid)]


@key("b")
async def bidding(rig: Rig) -> None:
    pid = chosen(rig)
    await rig.press("b")
    assert isinstance(rig.app.screen, AskNumber)
    await rig.press(*"x", "enter")
    assert "is no number" in rig.text
    # What was wrong is typed over, and a number may come in one go with its key.
    await rig.press(*"0.5", "enter")
    await rig.press("b", "enter")
    await rig.press("b", "escape")
    await rig.press_at_once("b", *"12.5", "enter")
    await rig.settle()
    assert rig.engine.asked == [("bid", pid, 0.5), ("bid", pid, None), ("bid", pid, 12.5)]


@key("e")
async def endowing(rig: Rig) -> None:
    pid = chosen(rig)
    await rig.press("e", "enter")
    assert "type a number" in rig.text
    await rig.press(*"-5", "enter")
    assert "from 0" in rig.text
    await rig.press(*"250", "enter")
    await rig.press_at_once("e", *"31")
    await rig.settle()
    await rig.press("7", "enter")
    assert rig.engine.asked == [("endow", pid, 250.0), ("endow", pid, 317.0)]


@key("l", "enter")
async def looking_closer(rig: Rig) -> None:
    assert rig.text.rstrip().endswith("l Log"), "the footer has room for all of its keys"
    row = rig.app.main.programs.chosen
    assert row is not None
    rig.engine.held = [ContextState(7, None, "qwen-3-8b", "idle", 123, 8, 2, 0, 500)]
    rig.engine.said = [{"seq": 1, "kind": "stdout", "data": "hello there\n", "time": 0.0}]
    await rig.press("enter")
    assert isinstance(rig.app.screen, ProgramScreen)
    await rig.draw()
    assert f"{row.label} {row.now.pid}" in rig.text
    assert "123 tokens  6 own + 2 shared pages" in rig.text
    assert "Phases" in rig.text
    await rig.press("end")
    assert "hello there" in rig.text
    await rig.press("l")
    assert "Phases" not in rig.text
    assert "hello there" in rig.text
    # What is done there is done to this program.
    await rig.press("r")
    assert rig.engine.asked == [("resume", row.now.pid)]
    await rig.press("escape", "l")
    assert "hello there" in rig.text
    await rig.press("q")
    assert rig.app.screen is rig.app.main


@key("s", "j")
async def saving(rig: Rig) -> None:
    await rig.press("s", "j")
    saved_files = [Path(name) for name in os.listdir() if name.startswith("pie-")]
    svg, saved = sorted(saved_files, key=lambda path: path.suffix, reverse=True)
    assert svg.read_text("utf-8").startswith("<svg")
    assert msgspec.convert(json.loads(saved.read_text("utf-8")), Snapshot) == rig.load.last
    assert str(svg.absolute()) in rig.notes


@key("t")
async def other_theme(rig: Rig) -> None:
    before = rig.app.theme
    await rig.press("t")
    assert (before, rig.app.theme) == ("textual-dark", "textual-light")
    await rig.press("t")
    assert rig.app.theme == before


@key("question_mark")
async def helping(rig: Rig) -> None:
    await rig.press("question_mark")
    assert isinstance(rig.app.screen, Help)
    assert "Leave the monitor; the engine goes on" in rig.text
    await rig.press("end")
    assert "docs/monitor.md" in rig.text
    await rig.press("escape")
    assert rig.app.screen is rig.app.main


GROUPS = (
    (moving, columns_aside, pages, zooming, other_model, freezing),
    (searching, filtering, ordering, grouping, choosing_columns),
    (killing, pausing, bidding, endowing),
    (looking_closer, saving, other_theme, helping),
)

QUICK = (0, 2)
"""Of these groups, those that every run tries."""


def _row(rig: Rig) -> str:
    row = rig.app.main.programs.chosen
    assert row is not None
    return row.label


@pytest.mark.parametrize(
    "checks",
    [pytest.param(group, marks=[] if i in QUICK else pytest.mark.slow) for i, group in enumerate(GROUPS)],
    ids=lambda checks: checks[0].__name__,
)
async def test_keys(checks: tuple[Check, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(tmp_path / "home") as rig:
        for check in checks:
            rig.engine.asked.clear()
            await check(rig)


def test_every_key_is_pressed_by_some_check() -> None:
    named = {binding.key.partition(",")[0] for binding in [*BINDINGS, *TABLE_KEYS]}
    assert named - set(CHECKS) == {"q", "ctrl+c"}
    assert {check for group in GROUPS for check in group} == set(CHECKS.values())


@pytest.mark.parametrize("leave", ["q", "ctrl+c"])
async def test_leaving_asks_nothing_of_the_engine_and_keeps_what_was_chosen(leave: str, tmp_path: Path) -> None:
    async with shown(tmp_path, programs=3, snapshots=2) as rig:
        if leave == "q":
            await rig.press("g", "z")
        await rig.press(leave)
        assert not rig.app.is_running or rig.app._exit
        assert rig.engine.asked == []
    if leave == "q":
        kept = preferences.load(tmp_path)
        assert (kept.is_grouped, kept.zoom, kept.sort) == (True, 1, "rate")


async def test_what_the_engine_refuses_is_shown_with_the_way_out(tmp_path: Path) -> None:
    async with shown(tmp_path, programs=3, snapshots=2) as rig:
        rig.engine.refusal = Unsupported("your token lacks `control`", hint="ask for one that has it")
        await rig.press("r")
        assert rig.notes == "your token lacks `control`\nask for one that has it"


async def test_words_that_are_typed_in_one_go_are_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(tmp_path, programs=3, snapshots=2) as rig:
        await rig.press_at_once("slash", *"sky", "enter")
        await rig.settle()
        assert (rig.engine.asked, rig.app.screen) == ([], rig.app.main)
        assert "no program has `sky`" in rig.notes
        await rig.press_at_once("f", *"debate")
        await rig.settle()
        assert rig.app.main.programs.order.filter == "debate"


@pytest.mark.slow
async def test_the_mouse_sorts_chooses_turns_pages_and_opens(tmp_path: Path) -> None:
    async with shown(tmp_path, programs=3, snapshots=2) as rig:
        await rig.pilot.click("#programs", offset=(2, 0))
        assert rig.app.main.programs.order.sort == "pid"
        await rig.pilot.click("#programs", offset=(2, 3))
        assert rig.app.main.programs._cursor == 2
        await rig.pilot.click("#tabs", offset=(15, 0))
        assert rig.app.main.page == "batch"
        await rig.press("1")
        await rig.pilot.click("#programs", offset=(2, 3), times=2)
        await rig.settle()
        assert isinstance(rig.app.screen, ProgramScreen)


async def test_a_lost_connection_is_said_and_the_picture_stays(tmp_path: Path) -> None:
    async with shown(tmp_path, programs=3, snapshots=2) as rig:
        before = rig.text.splitlines()[1:]
        rig.app.set_connection("reconnecting: the daemon is gone")
        await rig.settle()
        assert "○ reconnecting: the daemon is gone" in rig.text
        assert rig.text.splitlines()[1:] == before
        await rig.feed()
        assert "● live" in rig.text


@pytest.mark.slow
async def test_the_palette_finds_everything_that_keys_do(tmp_path: Path) -> None:
    async with shown(tmp_path, programs=3, snapshots=2) as rig:
        commands = list(rig.app.get_system_commands(rig.app.screen))
        assert len(commands) == len(BINDINGS) - 1
        await rig.press("ctrl+p")
        await rig.press(*"group")
        await rig.pilot.pause(0.3)
        await rig.press("enter")
        await rig.settle()
        assert rig.app.main.programs.order.is_grouped


async def test_lines_that_have_not_changed_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    write = Panel.written

    def noted(panel: Panel, y: int, place: Region) -> str:
        written.append(plain(panel.lines[y]))
        return write(panel, y, place)

    async with shown(tmp_path, size=(200, 60)) as rig:
        monkeypatch.setattr(Panel, "written", noted)
        await rig.draw()
        assert written == []
        await rig.press("down")
        assert len(written) == 2, "the program that was chosen, and the one that is"
        first, second = (rig.app.main.programs.listed[i].key[:8] for i in range(2))
        assert [text[:8] for text in written] == [first, second]


async def test_a_low_terminal_shows_the_programs(tmp_path: Path) -> None:
    async with shown(tmp_path, programs=3, size=(60, 8), snapshots=2) as rig:
        for keys in ((), ("2", "1")):
            await rig.press(*keys)
            await rig.draw()
            assert chosen(rig)[:8] in rig.text
            assert "Batch of" not in rig.text
