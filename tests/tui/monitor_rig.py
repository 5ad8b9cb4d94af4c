"""The monitor without a terminal, over snapshots that a test gives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from pie_cli.monitor.app import MonitorApp
from pie_cli.monitor.source import Update
from pie_engine.errors import PieError
from pie_engine.protocol.http import ContextView
from pie_engine.protocol.stats import ContextState
from tests.loads import Engine, Load


class FakeEngine:
    """Notes what it is asked for; `refusal` is what it answers then."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.refusal: PieError | None = None
        self.held: list[ContextState] = []
        self.said: list[dict[str, Any]] = []

    async def contexts_of(self, pid: str) -> list[ContextState]:
        return self.held

    async def events(self, pid: str, after: int = 0) -> list[dict[str, Any]]:
        return [event for event in self.said if event["seq"] > after]

    async def contexts(self) -> list[ContextView]:
        return []

    async def terminate(self, pid: str) -> None:
        self._note("terminate", pid)

    async def pause(self, pid: str) -> None:
        self._note("pause", pid)

    async def resume(self, pid: str) -> None:
        self._note("resume", pid)

    async def bid(self, pid: str, credits: float | None) -> None:
        self._note("bid", pid, credits)

    async def endow(self, pid: str, credits: float) -> None:
        self._note("endow", pid, credits)

    def _note(self, *asked: object) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(asked)


async def nothing() -> AsyncIterator[Update]:
    """A source from which nothing comes: the test itself hands the snapshots over."""
    await asyncio.Event().wait()
    yield  # type: ignore[misc]


class Rig:
    def __init__(self, app: MonitorApp, pilot: Pilot[None], engine: FakeEngine, load: Engine) -> None:
        self.app = app
        self.pilot = pilot
        self.engine = engine
        self.load = load

    async def feed(self, number: int = 1, every_s: float = 0.5) -> None:
        """That many more snapshots, and a picture of the last one."""
        for snapshot in self.load.stream(number, every_s):
            self.app.take(snapshot)
        await self.draw()

    async def draw(self) -> None:
        self.app.main.read_now()
        self.app.draw()
        await self.settle()

    async def press(self, *keys: str) -> None:
        """As `Pilot.press`, which waits 40 ms at each key for a processor that is idle."""
        for key in keys:
            self._post(key)
            await self.settle()

    async def press_at_once(self, *keys: str) -> None:
        """As a terminal hands them over that was stuck for a moment."""
        for key in keys:
            self._post(key)
        await self.settle()

    def _post(self, key: str) -> None:
        character = key if len(key) == 1 else None
        event = events.Key(_character_to_key(key) if character and not key.isalnum() else key, character)
        event.set_sender(self.app)
        self.app.post_message(event)

    async def settle(self) -> None:
        """Until everything that was asked for has been done, and what that asked for, too."""
        for _ in range(2):
            await self.pilot._wait_for_screen()
            self.app.screen._on_timer_update()
            await asyncio.sleep(0)
        await self.pilot._wait_for_screen()

    @property
    def text(self) -> str:
        """What the screen shows."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    @property
    def notes(self) -> str:
        return "\n".join(note.message for note in self.app._notifications)


@asynccontextmanager
async def shown(
    home: Path, load: Load = "contended", *, programs: int = 20, size: tuple[int, int] = (80, 24), snapshots: int = 30
) -> AsyncIterator[Rig]:
    engine = FakeEngine()
    app = MonitorApp(nothing(), engine, home)
    async with app.run_test(size=size, notifications=True) as pilot:
        rig = Rig(app, pilot, engine, Engine(load, programs))
        await rig.settle()
        await rig.feed(snapshots)
        yield rig
