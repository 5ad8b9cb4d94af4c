"""Guests as fibres: wasmtime runs each on a stack of its own, and one thread resumes them through the C async API.

wasmtime-py does not wrap that half of the API; its raw bindings are here. What C is told of must outlive the call, so a
fibre holds everything that it has handed out until `close`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    Array,
    Structure,
    addressof,
    byref,
    c_bool,
    c_char,
    c_size_t,
    c_void_p,
    cast,
    create_string_buffer,
)
from pathlib import Path
from typing import Any

from wasmtime import Store, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime.component import Component, Func, FuncType, Linker, LinkerInstance
from wasmtime.component._instance import Instance

from pie_engine.errors import InvalidProgram, PieError
from pie_engine.host.engine import TICK_S, Ticker, new_store, program_exports, trapped
from pie_engine.host.imports import NO_FINALIZER, Imports, error_record, raise_on, result_type
from pie_engine.host.runner import GuestOver, Outcome, Owner, Status
from pie_engine.host.values import (
    VALUE_BYTES,
    Decoder,
    ResultEncoder,
    Value,
    decode_text_result,
    decoder_of,
    delete_value,
    encode_text,
    error_address,
)

# wasmtime asks a continuation, `bool f(void *)`, whether a waiting guest may go on. strlen is one that exists in C: of
# a buffer of two bytes it says 0 or 1. In Python it would be two more calls for every wait.
_IS_ANSWERED = cast(CDLL(None).strlen, c_void_p).value
_WAITING, _ANSWERED = b"\0", b"\1"
MAX_START_TICKS = 200

# wasmtime_component_func_async_callback_t with plain addresses, as in `imports`.
_AsyncCallback = CFUNCTYPE(
    None, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p
)
_poll = CFUNCTYPE(c_bool, c_void_p)(("wasmtime_call_future_poll", ffi.dll))


class _Continuation(Structure):
    """wasmtime_async_continuation_t"""

    _fields_ = (("callback", c_void_p), ("env", c_void_p), ("finalizer", c_void_p))


class _Call:
    """A call in progress, with everything that wasmtime refers to until it is over."""

    def __init__(self, store: Store, function: Func, arguments: Sequence[str]) -> None:
        self._function = function
        self._arguments = (Value * len(arguments))()
        for index, text in enumerate(arguments):
            encode_text(text, addressof(self._arguments) + index * VALUE_BYTES)
        self._result, self._error = Value(), POINTER(ffi.wasmtime_error_t)()
        self._future = ffi.wasmtime_component_func_call_async(
            byref(function._func),
            store._context(),
            self._arguments,
            len(arguments),
            byref(self._result),
            1,
            byref(self._error),
        )

    def poll(self) -> bool:
        """Run on; whether it is over."""
        return bool(_poll(self._future))

    def outcome(self) -> Outcome:
        if self._error:
            error = WasmtimeError._from_ptr(self._error)
            self._error = POINTER(ffi.wasmtime_error_t)()
            return trapped(error)
        return Outcome(*decode_text_result(addressof(self._result)))

    def close(self) -> None:
        """Once. wasmtime unwinds a fibre that is suspended in the middle."""
        ffi.wasmtime_call_future_delete(self._future)
        for index in range(len(self._arguments)):
            delete_value(addressof(self._arguments) + index * VALUE_BYTES)
        delete_value(addressof(self._result))


class Fibre:
    """One instance, and the call in it."""

    def __init__(self, runner: FibreRunner, folder: Path) -> None:
        self._runner = runner
        self.used_cpu_ns = 0
        self.owner: Owner
        self.is_waiting = False
        self._results = 0
        self._is_answered: Array[c_char] = create_string_buffer(2)
        self._call: _Call | None = None
        self._store = new_store(runner.engine, folder, runner.memory_bytes)
        try:
            # Returns nothing, whatever its binding says.
            ffi.wasmtime_context_epoch_deadline_async_yield_and_update(self._store._context(), 1)
            self._instance = self._instantiate()
        except BaseException:
            self._store.close()
            raise

    def _instantiate(self) -> Instance:
        instance, error = ffi.wasmtime_component_instance_t(), POINTER(ffi.wasmtime_error_t)()
        runner = self._runner
        future = ffi.wasmtime_component_linker_instantiate_async(
            runner.linker.ptr(), self._store._context(), runner.component.ptr(), byref(instance), byref(error)
        )
        try:
            self._run_start(future)
        finally:
            ffi.wasmtime_call_future_delete(future)
        raise_on(error)
        return Instance._from_raw(instance)

    def _run_start(self, future: Any) -> None:
        """A component may run code of its own while it is instantiated."""
        for _ in range(MAX_START_TICKS):
            self._runner.ticker.enter()
            has_ended = _poll(future)
            self._runner.ticker.leave()
            if has_ended:
                return
        raise InvalidProgram(f"the component takes more than {MAX_START_TICKS * TICK_S:.0f} s to instantiate")

    def limit_memory(self, num_bytes: int) -> None:
        self._store.set_limits(memory_size=num_bytes)

    def begin(self, owner: Owner, function: str, arguments: Sequence[str]) -> None:
        assert self._call is None, "one call after another"
        self.owner = owner
        export = self._instance.get_func(self._store, self._runner.exports[function])
        assert export is not None
        self._call = _Call(self._store, export, arguments)

    def suspend(self, results: int) -> None:
        """It waits; `results` stays writable until its continuation says that the answer is there."""
        self._results, self.is_waiting = results, True
        self._is_answered[0] = _WAITING

    def go_on(self) -> None:
        self.is_waiting = False
        self._is_answered[0] = _ANSWERED

    @property
    def continuation_env(self) -> int:
        return addressof(self._is_answered)

    def answer(self, ready: list[int] | PieError) -> None:
        self._runner.write_answer(ready, self._results)
        self.go_on()

    def resume(self) -> Status:
        assert self._call is not None
        self._runner.enter(self)
        started = time.thread_time_ns()
        has_ended = self._call.poll()
        self.used_cpu_ns = time.thread_time_ns() - started
        self._runner.ticker.leave()
        if has_ended:
            return Status.ENDED
        return Status.WAITING if self.is_waiting else Status.PREEMPTED

    def take_outcome(self) -> Outcome:
        assert self._call is not None
        outcome = self._call.outcome()
        self._end_call()
        return outcome

    def close(self) -> None:
        self._end_call()
        self._store.close()

    def _end_call(self) -> None:
        if self._call is not None:
            self._call.close()
            self._call = None


class FibreRunner:
    """Runs the guests of one component."""

    def __init__(self, ticker: Ticker, component: Component, imports: Imports, memory_bytes: int) -> None:
        self.ticker = ticker
        self.engine = engine = ticker.engine
        self.component = component
        self.memory_bytes = memory_bytes
        self.exports = program_exports(component)
        self._imports = imports
        self._running: Fibre
        self._wait_callback = _AsyncCallback(self._on_wait)
        self._decode_timeout: Decoder
        self._wait_result: ResultEncoder
        self.linker = Linker(engine)
        # The synchronous WASI: any wait in the asynchronous one aborts this process, since it needs a Tokio runtime
        # that only an embedder in Rust can give. In this one a wait holds the host up, so the runtime replaces those
        # that Python programs can reach.
        self.linker.add_wasip2()
        imports.link(self.linker, component, self._link_wait)

    def prepare(self, folder: Path) -> Fibre:
        self._imports.begin_instance()
        return Fibre(self, folder)

    def enter(self, fibre: Fibre) -> None:
        """What guests call from here on is on behalf of `fibre`."""
        self._running = fibre
        self._imports.owner = fibre.owner
        self.ticker.enter()

    def write_answer(self, ready: list[int] | PieError, results: int) -> None:
        if isinstance(ready, PieError):
            self._wait_result.error(error_record(ready), results)
        else:
            self._wait_result.ok(ready, results)

    def _link_wait(self, instance: LinkerInstance, kind: FuncType) -> None:
        ((_, timeout),) = kind.params
        self._decode_timeout = decoder_of(timeout)
        self._wait_result = ResultEncoder(result_type(kind))
        raise_on(
            ffi.wasmtime_component_linker_instance_add_func_async(
                instance.ptr(),
                create_string_buffer(b"wait-any"),
                len(b"wait-any"),
                cast(self._wait_callback, ffi.wasmtime_component_func_async_callback_t),
                None,
                NO_FINALIZER,
            )
        )

    def _on_wait(
        self,
        _env: int,
        _context: int,
        _type: int,
        args: int,
        _nargs: int,
        results: int,
        _nresults: int,
        error: int,
        continuation: int,
    ) -> None:
        fibre = self._running
        try:
            self._begin_wait(fibre, args, results)
            out = _Continuation.from_address(continuation)
            out.callback, out.env, out.finalizer = _IS_ANSWERED, fibre.continuation_env, None
        except GuestOver as over:
            c_void_p.from_address(error).value = error_address(str(over))
        except BaseException as failure:
            c_void_p.from_address(error).value = error_address(error_record(failure).message)

    def _begin_wait(self, fibre: Fibre, args: int, results: int) -> None:
        fibre.owner.num_calls += 1
        try:
            ready = fibre.owner.begin_wait(self._decode_timeout(args))
        except PieError as refusal:
            self.write_answer(refusal, results)
            fibre.go_on()
            return
        if ready is None:
            fibre.suspend(results)
        else:
            self.write_answer(ready, results)
            fibre.go_on()
