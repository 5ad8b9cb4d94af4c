"""Runners of processes that are recorded: the clock and the chance of their guests are noted."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from wasmtime import Engine
from wasmtime.component import Component

from pie_engine.host.components import ComponentRunners, NewRunner
from pie_engine.host.programs import Program
from pie_engine.host.runner import Runner
from pie_engine.host.runtime import runtime_build


class RecordedRunners:
    """Made when the first process is recorded."""

    def __init__(self, engine: Engine, runtime: Component | None, cache: Path, new_runner: NewRunner) -> None:
        """`runtime`: the shared one; None: there are standalone components only. `new_runner`: with surroundings."""
        self._runtime = runtime
        self._cache = cache
        self._new_runner = new_runner
        self._components = ComponentRunners(engine, cache, new_runner)

    def find(self, program: Program) -> Runner | None:
        """The runner of this program; None while it is being compiled. Raises `InvalidProgram`."""
        return self._components.find(program) if program.is_component else self._shared

    @cached_property
    def runtime_build(self) -> str:
        """Of the guests that are no components of their own."""
        return runtime_build(self._cache)

    def close(self) -> None:
        self._components.close()

    @cached_property
    def _shared(self) -> Runner:
        assert self._runtime is not None, "this host has no Python runtime"
        return self._new_runner(self._runtime)
