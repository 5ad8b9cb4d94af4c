"""Standalone components: compiled once by content, each with a runner of its own.

Compiling takes seconds, so it happens on another thread; the programs that need it wait meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component

from pie_engine.builder.fit import refuse_other_interfaces
from pie_engine.errors import InvalidProgram
from pie_engine.host.engine import SETTINGS
from pie_engine.host.programs import Program
from pie_engine.host.runner import Runner
from pie_engine.protocol.program import COMPONENT_FILE

log = logging.getLogger(__name__)

MAX_RUNNERS = 16
"""Kept in memory; the compiled code of others is loaded again from its file."""

NewRunner = Callable[[Component], Runner]


class ComponentRunners:
    """The runners of standalone components that were used last."""

    def __init__(self, engine: Engine, cache: Path, new_runner: NewRunner) -> None:
        self._engine = engine
        self._cache = cache / "components"
        self._new_runner = new_runner
        self._runners: OrderedDict[str, Runner] = OrderedDict()
        self._compiling: dict[str, Future[Component]] = {}
        self._pool = ThreadPoolExecutor(1, "compile")

    def find(self, program: Program) -> Runner | None:
        """The runner of this program; None while it is being compiled. Raises `InvalidProgram`."""
        key = program.digest
        if key not in self._runners:
            component = self._component(key, program)
            if component is None:
                return None
            with fitting():
                self._runners[key] = self._new_runner(component)
            if len(self._runners) > MAX_RUNNERS:
                self._runners.popitem(last=False)
        self._runners.move_to_end(key)
        return self._runners[key]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _component(self, key: str, program: Program) -> Component | None:
        compiling = self._compiling.get(key)
        if compiling is None:
            refuse_other_interfaces(program.component)
            compiling = self._compiling[key] = self._pool.submit(
                load_component, self._engine, self._cache, program.component
            )
        if not compiling.done():
            return None
        del self._compiling[key]
        return compiling.result()


@contextmanager
def fitting() -> Iterator[None]:
    """Around what links or instantiates a component. Raises `InvalidProgram` where it wants what there is not."""
    try:
        yield
    except (WasmtimeError, AssertionError) as error:
        what = str(error).partition("\n")[0] or "its functions have other types"
        message = f"the component does not fit this version of Pie: {what}"
        raise InvalidProgram(message, hint="build it for this version of Pie") from error


def load_component(engine: Engine, cache: Path, wasm: bytes) -> Component:
    """The compiled component, from `cache` or into it."""
    tag = f"{version('wasmtime')}\0{SETTINGS}\0".encode()
    path = cache / f"{hashlib.blake2b(tag + wasm, digest_size=16).hexdigest()}.cwasm"
    try:
        if path.exists():
            component = Component.deserialize_file(engine, str(path))
            with suppress(OSError):  # a folder that can only be read is as good
                path.touch()
            return component
    except WasmtimeError:
        path.unlink(missing_ok=True)  # half a file, or of another machine
    try:
        component = Component(engine, wasm)
    except WasmtimeError as error:
        raise InvalidProgram(f"{COMPONENT_FILE} is no WebAssembly component: {error}") from error
    try:
        _write(path, component.serialize())
    except OSError as error:
        log.warning("compiled for this time only: %s", error)
    return component


def _write(path: Path, data: bytes | bytearray) -> None:
    """Whole or not at all. Loading compiled code is running it, so nobody else may write there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(draft, path)
