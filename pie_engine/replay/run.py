"""Runs a program against a recording: in the real sandbox, without models, daemon or client."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec
from wasmtime.component import Component

from pie_engine.builder.componentize import Progress
from pie_engine.config import MIB, HostSection, load_paths
from pie_engine.errors import ErrorInfo, LimitExceeded, PieError
from pie_engine.host.components import fitting, load_component
from pie_engine.host.ending import outcome_ending
from pie_engine.host.engine import Ticker, new_engine
from pie_engine.host.fibres import FibreRunner
from pie_engine.host.imports import Imports, short_name
from pie_engine.host.interfaces import INTERFACES
from pie_engine.host.limits import GrantedLimits
from pie_engine.host.programs import Program
from pie_engine.host.runner import Guest, Status
from pie_engine.host.runtime import load_runtime, runtime_build
from pie_engine.host.tap import Tap
from pie_engine.protocol.departure import Departure
from pie_engine.protocol.program import Bundle
from pie_engine.protocol.recording import Replayable
from pie_engine.replay.script import Script, decoded

Show = Callable[[str, Any], None]


class Replayed(msgspec.Struct, frozen=True):
    """What came of a replay."""

    departures: list[Departure]
    """In order; none: the program did what the recording says, as far as it goes."""
    kind: str
    """How the program ended, or the recorded one where it was stopped: `return`, `error`, or `cut` at the end of a
    recording that was cut off, or `departed`."""
    value: Any
    """What it returned, or the `ErrorInfo`."""
    num_calls: int
    """Calls that were as recorded."""
    runtime: Literal["same", "rebuilt", "other"]
    """Whether it ran in the runtime of the recording. `rebuilt`: objects have other ids, so sets of them have another
    order. `other`: of another version, whose own calls may differ."""
    num_extra_reads: int
    """How often it looked at the clock, or drew random numbers, beyond what the recording has."""

    @property
    def is_same(self) -> bool:
        return not self.departures


class Replays:
    """Replays, one after another. A context manager; the runtime is loaded once. Not thread-safe."""

    def __init__(self, progress: Progress = lambda text, fraction: None) -> None:
        """Raises what `load_runtime` raises, which builds the runtime when the cache has none."""
        self._cache = load_paths().cache
        self._engine = new_engine()
        self._progress = progress
        self._ticker = Ticker(self._engine)
        self._runtime: FibreRunner | None = None
        self._data = tempfile.TemporaryDirectory(prefix="pie-replay-")

    def replay(
        self, recording: Replayable, bundle: Bundle | None = None, show: Show = lambda kind, value: None
    ) -> Replayed:
        """Run the recorded program, or `bundle` in its place.

        show: told of what the program says, as kind and value of an event. Raises `InvalidProgram` when there is
        nothing to run.
        """
        bundle = bundle or recording.head.bundle
        program = Program(bundle.digest, bundle)
        script = Script(recording, show)
        run = _Run(script, GrantedLimits.of(recording.head.limits, _ENGINE_LIMITS))
        guest = self._guest(program)
        try:
            run.begin(guest, program)
            kind, value = run.finish()
        finally:
            guest.close()
        runtime = self._same_runtime(recording.head.runtime)
        return Replayed(script.departures, kind, value, script.num_calls, runtime, script.surroundings.num_extra)

    def close(self) -> None:
        self._ticker.close()
        self._data.cleanup()

    def __enter__(self) -> Replays:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _same_runtime(self, recorded: str) -> Literal["same", "rebuilt", "other"]:
        build = runtime_build(self._cache) if recorded else ""
        if build == recorded:
            return "same"
        return "rebuilt" if build.partition(" ")[0] == recorded.partition(" ")[0] else "other"

    def _guest(self, program: Program) -> Guest:
        folder = Path(self._data.name)
        return self._runner(program).prepare(program.data_folder(folder) if program.has_data else _empty(folder))

    def _runner(self, program: Program) -> FibreRunner:
        if program.is_component:
            with fitting():
                return self._new_runner(load_component(self._engine, self._cache / "components", program.component))
        if self._runtime is None:
            self._runtime = self._new_runner(load_runtime(self._engine, self._cache, self._progress))
        return self._runtime

    def _new_runner(self, component: Component) -> FibreRunner:
        imports = Imports(_FUNCTIONS, with_surroundings=True)
        return FibreRunner(self._ticker, component, imports, _ENGINE_LIMITS.memory_mb * MIB)


_ENGINE_LIMITS = HostSection(memory_mb=4096, cpu_s=86_400, output_mb=65_536)
"""The limits that count are those of the recording."""


class _Run:
    """The owner of the guest of one replay."""

    tap: Tap | None = None

    def __init__(self, script: Script, limits: GrantedLimits) -> None:
        self.script = script
        self.places = script.places
        self.surroundings = script.surroundings
        self.limits = limits
        self.num_calls = 0
        self._num_calls_seen = 0
        self._cpu_ns = 0
        self._doom: PieError | None = None

    def begin_wait(self, timeout_us: int | None) -> list[int]:
        return self.script.wait(timeout_us)

    def begin(self, guest: Guest, program: Program) -> None:
        self._guest = guest
        guest.limit_memory(self.limits.memory_mb * MIB)
        text = program.watched_text(with_code=False)
        guest.begin(self, "run", (text, *self.script.recording.head.arguments))

    def finish(self) -> tuple[str, Any]:
        """How it ended."""
        while self._guest.resume() is not Status.ENDED:
            self._account_cpu()
            if self._doom is not None:
                break
        script, end = self.script, self.script.recording.end
        if script.has_stopped:
            kind, value = ("cut", None) if end is None else (end.kind, decoded(end))
            if script.departures and script.departures[-1].kind == "call":
                kind, value = "departed", None
        else:
            kind, value = script.end(*self._outcome())
        return kind, value

    def _outcome(self) -> tuple[str, Any]:
        ending = self._doom.info if self._doom is not None else outcome_ending(self._guest.take_outcome(), self.limits)
        return ("error", ending) if isinstance(ending, ErrorInfo) else ("return", msgspec.json.decode(ending))

    def _account_cpu(self) -> None:
        """As a host does: too long without a call dooms it."""
        if self.num_calls != self._num_calls_seen:
            self._num_calls_seen, self._cpu_ns = self.num_calls, 0
        self._cpu_ns += self._guest.used_cpu_ns
        if self._cpu_ns > self.limits.cpu_s * 1e9:
            message = f"the program computed for {self.limits.cpu_s:g} s without a call to the engine"
            self._doom = LimitExceeded.of("cpu_limit", message)


def _answer(name: str, run: _Run, *arguments: Any) -> Any:
    return run.script.answer(name, arguments)


def _at(run: _Run, place: str, task: str) -> None:
    run.script.places.now = place, task


_FUNCTIONS = {
    interface: {
        function: _at if function == "at" else partial(_answer, f"{short_name(interface)}.{function}")
        for function in functions
    }
    for interface, functions in INTERFACES.items()
}


def _empty(folder: Path) -> Path:
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    return empty
