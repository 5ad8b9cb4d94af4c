"""The WebAssembly engine of a host, its stores, and the clock by which guests take turns."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wasmtime import Config, Engine, ExitTrap, Store, WasiConfig, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime._managed import Managed
from wasmtime.component import Component, ExportIndex

from pie_engine.errors import InvalidProgram
from pie_engine.host.backtrace import as_traceback, frames_of
from pie_engine.host.runner import PROGRAM, Outcome

STUCK_S = 30.0
"""One that has not even yielded for so long waits inside WASI, and everybody with it."""
TICK_S = 0.010
"""A guest that runs longer than this in one go is preempted."""
GUEST_STACK_BYTES = 4 << 20
FIBRE_STACK_BYTES = GUEST_STACK_BYTES + (2 << 20)
"""Host functions run on the guest's stack, below its own part. Only pages that are touched take memory."""
SETTINGS = f"epochs, stack {GUEST_STACK_BYTES}"
"""What compiled code depends on, for the names of cached files."""
PROGRAM_FUNCTIONS = ("describe", "run")


@atexit.register
def _leave_to_the_system() -> None:
    # What is still alive when the interpreter ends would be freed by a module that is gone by then, and complain.
    Managed.__del__ = lambda self: None  # type: ignore[method-assign]


def new_engine() -> Engine:
    """An engine whose compiled components another engine with the same settings can load."""
    config = Config()
    config.epoch_interruption = True
    config.max_wasm_stack = GUEST_STACK_BYTES
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), FIBRE_STACK_BYTES)
    return Engine(config)


def new_store(engine: Engine, folder: Path, memory_bytes: int) -> Store:
    """A store whose guest sees `folder` as its root, read-only, and nothing else of this machine."""
    store = Store(engine)
    wasi = WasiConfig()
    wasi.preopen_dir(str(folder), "/", fs_mutable=False)
    store.set_wasi(wasi)
    store.set_limits(memory_size=memory_bytes)
    store.set_epoch_deadline(1)
    return store


def program_exports(component: Component) -> dict[str, ExportIndex]:
    """Where `describe` and `run` are; looked up once for all instances. Raises `InvalidProgram`."""
    interface = component.get_export_index(PROGRAM)
    found = {name: component.get_export_index(name, interface) for name in PROGRAM_FUNCTIONS} if interface else {}
    missing = [name for name in PROGRAM_FUNCTIONS if not found.get(name)]
    if missing:
        raise InvalidProgram(
            f"the component does not export {PROGRAM}#{missing[0]}", hint="build it for this version of Pie"
        )
    return {name: index for name, index in found.items() if index is not None}


def trapped(error: WasmtimeError) -> Outcome:
    """Of a call that ended with a trap."""
    return Outcome(
        False,
        trap_text(error),
        is_trap=True,
        is_out_of_memory=is_out_of_memory(error),
        traceback=as_traceback(frames_of(str(error))),
    )


def trap_text(error: WasmtimeError) -> str:
    """What went wrong, without the frames: `wasm trap: …`, or how the program left."""
    if isinstance(error, ExitTrap):
        # WASI 0.2 only tells success from failure: wasmtime makes 1 of every other status.
        return "exit status 0" if error.code == 0 else "exit status other than 0"
    message, _, causes = str(error).partition("Caused by:")
    lines = [line.strip().removeprefix("0: ") for line in (causes or message).strip().splitlines()]
    return lines[-1] if causes else lines[0]


def is_out_of_memory(error: WasmtimeError) -> bool:
    """Whether the trap comes from where there was no memory, and Python could not say so.

    The runtime around Python, which is written in Rust, breaks off when it gets none itself (`rust_oom`). It panics
    when Python has none for an object, or for the report of the error with which a program ends.
    """
    frames = str(error).partition("Caused by:")[0]
    return "rust_oom" in frames or "componentize_py_runtime.wasm!__rustc::rust_begin_unwind" in frames


class Ticker:
    """Advances the engine's epoch when one guest has been running for a whole tick; it yields at its next look.

    Not by the clock alone: a guest whose deadline has passed while it waited would yield as soon as it is resumed.
    """

    def __init__(self, engine: Engine, on_stuck: Callable[[], None] | None = None, *, stuck_s: float = STUCK_S) -> None:
        """`on_stuck` is called, on another thread, when a guest has not yielded for `stuck_s`."""
        self.engine = engine
        self._on_stuck = on_stuck
        self._stuck_s = stuck_s
        self._num_runs = 0
        self._is_inside = False
        self._is_resting = False
        self._is_closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="ticker", daemon=True)
        self._thread.start()

    def enter(self) -> None:
        """A guest begins to run."""
        self._num_runs += 1
        self._is_inside = True
        if self._is_resting:
            self._wake.set()

    def leave(self) -> None:
        self._is_inside = False

    def close(self) -> None:
        self._is_closed = True
        self._wake.set()
        self._thread.join()

    def _tick(self) -> None:
        num_runs = num_ticks = 0
        while not self._is_closed:
            if num_runs != self._num_runs:
                num_runs, num_ticks = self._num_runs, 0
            time.sleep(TICK_S)
            if num_runs != self._num_runs:
                continue
            if not self._is_inside:
                self._rest(num_runs)
                continue
            self.engine.increment_epoch()
            num_ticks += 1  # not the clock, which goes on while this process is stopped
            if self._on_stuck is not None and num_ticks * TICK_S > self._stuck_s:
                self._on_stuck()

    def _rest(self, num_runs: int) -> None:
        """Until a guest runs: an idle host should not wake up a hundred times a second."""
        self._is_resting = True
        if num_runs == self._num_runs:
            self._wake.wait()
        self._is_resting = False
        self._wake.clear()
