"""A host with the real runtime in the real sandbox, in one thread: no sockets, and a core that the test plays."""

from __future__ import annotations

import json
import textwrap
import time
from itertools import count
from pathlib import Path

from pie_engine.config import MIB, EngineConfig, HostSection, ModelSection
from pie_engine.errors import ErrorInfo
from pie_engine.host.components import ComponentRunners
from pie_engine.host.engine import Ticker
from pie_engine.host.guests import Guests
from pie_engine.host.host import Host
from pie_engine.host.imports import Imports
from pie_engine.host.interfaces import INTERFACES
from pie_engine.host.models import HostModel
from pie_engine.host.native import native_functions
from pie_engine.host.recorded import RecordedRunners
from pie_engine.host.warm import WarmGuests
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.to_core import CoreMessage
from pie_engine.protocol.to_gateway import Event, HostReport
from pie_engine.protocol.to_host import (
    CoreResult,
    Launch,
)

CACHE = Path(__file__).parents[3] / "build" / "test-cache"
TIMEOUT_S = 30
CONFIG = EngineConfig(models=(ModelSection(name="tiny"),), host=HostSection(cancel_grace_s=0.3, gateway_grace_s=0.2))
SLEEPER = """
import asyncio
async def main(turns: int = 20) -> int:
    for _ in range(turns):
        await asyncio.sleep(0.01)
    return turns
"""
WAITER = """
from inferlet import session
async def main() -> str:
    return await session.receive()
"""
BUSY = "async def main() -> None:\n    while True:\n        pass\n"


def bundle(source: str, files: dict[str, str] | None = None, **limits: float) -> Bundle:
    main = {"main.py": textwrap.dedent(source)}
    return Bundle(Manifest(name="p", version="1.0", limits=Limits(**limits)), files=main | (files or {}))  # type: ignore[arg-type]


class InlineHost:
    """A host, its gateway and, if asked for, a core, in one thread."""

    def __init__(self, runner_class, engine, component, data: Path) -> None:
        self.ticker = Ticker(engine)

        def new_runner(component, imports=None):
            return runner_class(self.ticker, component, imports or Imports(INTERFACES), CONFIG.host.memory_mb * MIB)

        def new_recorded_runner(component):
            return new_runner(component, Imports(INTERFACES, with_surroundings=True))

        warm = WarmGuests(new_runner(component), data, 2)
        recorded = RecordedRunners(engine, component, data, new_recorded_runner)
        native = native_functions(engine, component, INTERFACES)
        self.host = Host(CONFIG, Guests(warm, ComponentRunners(engine, data, new_runner), recorded, native))
        self.reports: list[HostReport] = []
        self.asked: list[CoreMessage] = []
        self._numbers = count(1)

    def launch(self, source: str | Bundle, **arguments: object) -> str:
        pid = f"p{next(self._numbers)}"
        program = bundle(source) if isinstance(source, str) else source
        self.host.receive_order(Launch(pid, "ann", program.digest, program, json.dumps(arguments)))
        return pid

    def turn(self) -> None:
        self.host.run(0.002)
        self.reports += self.host.take_reports()
        for messages in self.host.take_messages().values():
            self.asked += messages
        self.host.guests.bury()

    def until(self, condition) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, "not in time"
            self.turn()
            if not self.host.has_ready:
                time.sleep(0.001)

    def run_to_end(self) -> None:
        self.until(lambda: not self.host.processes)
        self.turn()

    def events(self, pid: str) -> list[tuple[str, object]]:
        events = [report for report in self.reports if isinstance(report, Event) and report.pid == pid]
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return [(event.kind, json.loads(event.data)) for event in events]

    def ending(self, pid: str) -> tuple[str, object]:
        """The terminal event, which there is exactly one of, and which is the last."""
        events = self.events(pid)
        assert [kind for kind, _ in events if kind in ("return", "error")] == [events[-1][0]]
        return events[-1]

    def run(self, source: str | Bundle, **arguments: object) -> tuple[str, object]:
        pid = self.launch(source, **arguments)
        self.run_to_end()
        return self.ending(pid)

    def error(self, source: str | Bundle, **arguments: object) -> ErrorInfo:
        kind, data = self.run(source, **arguments)
        assert kind == "error", data
        assert isinstance(data, dict)
        return ErrorInfo(**data)

    def add_core(self) -> None:
        self.host.add_core("boot", HostModel("tiny", 1000, 1000, 16, None, None))  # type: ignore[arg-type]

    def answer(self, *results: CoreResult) -> None:
        self.host.receive_results("boot", results)

    def close(self) -> None:
        self.host.close()
        self.ticker.close()
