"""Guests as threads, one of which runs at a time: the fallback behind the same seam.

Needs nothing of wasmtime but its documented synchronous API. The right to run passes like a baton between the host's
loop and the guest that it has resumed, so nothing else has to be locked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from ctypes import CFUNCTYPE, POINTER, c_size_t, c_uint8, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from wasmtime import WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime.component import Component, FuncType, Linker, LinkerInstance

from pie_engine.errors import Cancelled, PieError
from pie_engine.host.engine import GUEST_STACK_BYTES, Ticker, new_store, program_exports, trapped
from pie_engine.host.imports import NO_FINALIZER, Imports, result_type
from pie_engine.host.runner import Outcome, Owner, Status
from pie_engine.host.values import error_address

_THREAD_STACK_BYTES = GUEST_STACK_BYTES + (2 << 20)
_CONTINUE = 0
_EpochCallback = CFUNCTYPE(c_size_t, POINTER(ffi.wasmtime_context_t), c_void_p, POINTER(c_uint64), POINTER(c_uint8))


class _Baton:
    """Who may run: the host's loop or the guest."""

    def __init__(self) -> None:
        self._guests_turn, self._loops_turn = threading.Semaphore(0), threading.Semaphore(0)

    def give_to_guest(self) -> None:
        self._guests_turn.release()
        self._loops_turn.acquire()

    def give_to_loop(self) -> None:
        self._loops_turn.release()
        self._guests_turn.acquire()

    def begin_as_guest(self) -> None:
        self._guests_turn.acquire()

    def end_as_guest(self) -> None:
        self._loops_turn.release()


class GuestThread:
    """One instance, and the thread of the call in it."""

    def __init__(self, runner: ThreadRunner, folder: Path) -> None:
        self._runner = runner
        self.used_cpu_ns = 0
        self.owner: Owner
        self._baton = _Baton()
        self._status = Status.PREEMPTED
        self._answer: list[int] | PieError = []
        self._outcome = Outcome(False, "never run", is_trap=True)
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._store = new_store(runner.ticker.engine, folder, runner.memory_bytes)
        self._epoch_callback = _EpochCallback(self._on_epoch)
        ffi.wasmtime_store_epoch_deadline_callback(self._store.ptr(), self._epoch_callback, None, NO_FINALIZER)
        try:
            self._instance = runner.linker.instantiate(self._store, runner.component)
        except BaseException:
            self._store.close()
            raise

    def limit_memory(self, num_bytes: int) -> None:
        self._store.set_limits(memory_size=num_bytes)

    def begin(self, owner: Owner, function: str, arguments: Sequence[str]) -> None:
        assert self._thread is None, "one call after another"
        self.owner = owner
        self._status = Status.PREEMPTED
        self._thread = threading.Thread(target=self._live, args=(function, arguments), name="guest", daemon=True)
        self._thread.start()

    def answer(self, ready: list[int] | PieError) -> None:
        self._answer = ready

    def resume(self) -> Status:
        self._runner.enter(self)
        self._baton.give_to_guest()
        self._runner.ticker.leave()
        return self._status

    def wait(self, timeout_us: int | None) -> list[int]:
        """`futures.wait-any`, on the guest's thread."""
        ready = self.owner.begin_wait(timeout_us)
        if ready is not None:
            return ready
        self._stop(Status.WAITING)
        if isinstance(self._answer, PieError):
            raise self._answer
        return self._answer

    def take_outcome(self) -> Outcome:
        assert self._thread is not None
        self._thread.join()
        self._thread = None
        return self._outcome

    def close(self) -> None:
        """The thread leaves by itself, at once if it waits and at its next look at the epoch if it runs."""
        if self._thread is not None:
            self._is_closing = True
            self._answer = Cancelled("closed")
            while self._status is not Status.ENDED:
                self.resume()
            self._thread.join()
        self._store.close()

    def _live(self, function: str, arguments: Sequence[str]) -> None:
        self._baton.begin_as_guest()
        self._started_ns = time.thread_time_ns()
        try:
            call = self._instance.get_func(self._store, self._runner.exports[function])
            assert call is not None
            result = call(self._store, *arguments)
            self._outcome = Outcome(result.tag == "ok", result.payload)
        except WasmtimeError as error:
            self._outcome = trapped(error)
        except BaseException as error:
            self._outcome = Outcome(False, f"{type(error).__name__}: {error}", is_trap=True)
        self._account(Status.ENDED)
        self._baton.end_as_guest()

    def _stop(self, status: Status) -> None:
        self._account(status)
        self._baton.give_to_loop()
        self._started_ns = time.thread_time_ns()

    def _account(self, status: Status) -> None:
        self.used_cpu_ns = time.thread_time_ns() - self._started_ns
        self._status = status

    def _on_epoch(self, _context: Any, _data: Any, delta: Any, kind: Any) -> int:
        """A tick has come while this guest ran."""
        try:
            if self._thread is threading.current_thread():
                if not self._is_closing:
                    self._stop(Status.PREEMPTED)
                if self._is_closing:
                    return error_address("closed")
            delta[0], kind[0] = 1, _CONTINUE
            return 0
        except BaseException as error:
            return error_address(repr(error))


class ThreadRunner:
    """Runs the guests of one component."""

    def __init__(self, ticker: Ticker, component: Component, imports: Imports, memory_bytes: int) -> None:
        threading.stack_size(_THREAD_STACK_BYTES)
        self.ticker = ticker
        self.component = component
        self.memory_bytes = memory_bytes
        self.exports = program_exports(component)
        self._imports = imports
        self._running: GuestThread
        self.linker = Linker(ticker.engine)
        self.linker.add_wasip2()
        imports.link(self.linker, component, self._link_wait)

    def prepare(self, folder: Path) -> GuestThread:
        self._imports.begin_instance()
        return GuestThread(self, folder)

    def enter(self, guest: GuestThread) -> None:
        """What guests call from here on is on behalf of `guest`."""
        self._running = guest
        self._imports.owner = guest.owner
        self.ticker.enter()

    def _link_wait(self, instance: LinkerInstance, kind: FuncType) -> None:
        result_type(kind)
        self._imports.define(instance, "wait-any", lambda _owner, timeout_us: self._running.wait(timeout_us), kind)
