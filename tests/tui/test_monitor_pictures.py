"""Pictures of the monitor, compared with those in `pictures/`; `PIE_UPDATE_GOLDEN=1` writes them anew."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_cli.monitor.picture import portable
from pie_engine.protocol.stats import ContextState
from tests.loads import BEGIN, Load
from tests.tui.monitor_rig import Rig, shown

PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clocks in pictures are of the same place everywhere."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def compare(name: str, got: str) -> None:
    path = PICTURES / name
    if os.environ.get("PIE_UPDATE_GOLDEN"):
        path.write_text(got, "utf-8")
    assert got == path.read_text("utf-8"), f"{name} looks different: PIE_UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize(
    ("load", "size", "theme"),
    [
        ("contended", (80, 24), "textual-dark"),
        pytest.param("saturated", (120, 36), "textual-light", marks=pytest.mark.slow),
        pytest.param("idle", (200, 60), "textual-dark", marks=pytest.mark.slow),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else value,
)
async def test_three_sizes(load: Load, size: tuple[int, int], theme: str, tmp_path: Path) -> None:
    async with shown(tmp_path, load, programs=60, size=size, snapshots=60) as rig:
        rig.app.theme = theme
        await rig.draw()
        compare(f"{load}-{size[0]}x{size[1]}.svg", portable(rig.app.export_screenshot()))


async def test_pages_and_screens_at_80_by_24(tmp_path: Path) -> None:
    """As text: colours are in the pictures above, and say nothing that the text does not."""
    async with shown(tmp_path, "contended", programs=12, snapshots=60) as rig:
        await _open(rig, "2", "batch")
        await _open(rig, "3", "market")
        await _open(rig, "4", "throughput")
        await _open(rig, "5", "parts")
        await _open(rig, "6", "diagnosis")
        await rig.press("1")
        await _open(rig, "g", "groups")
        await _open(rig, "question_mark", "help")
        await rig.press("escape", "g")
        rig.engine.held = [
            ContextState(1, None, "qwen-3-8b", "running", 480, 30, 28, 0, 21_000),
            ContextState(2, 1, "qwen-3-8b", "waiting: pages", 512, 32, 28, 2, 21_000),
            ContextState(3, 1, "qwen-3-8b", "idle", 490, 31, 28, 0, 0),
        ]
        rig.engine.said = [{"seq": 1, "kind": "stdout", "data": "thinking\n", "time": BEGIN}]
        await _open(rig, "enter", "program")


async def _open(rig: Rig, key: str, name: str) -> None:
    await rig.press(key)
    await rig.draw()
    compare(f"{name}.txt", rig.text + "\n")
