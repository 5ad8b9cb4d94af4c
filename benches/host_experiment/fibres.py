"""Fibres: one loop polls every guest through wasmtime's C async API; a guest that waits costs nothing."""

import ctypes
import itertools
import time
from collections import deque
from ctypes import POINTER, byref, c_void_p, cast, create_string_buffer

import abi
import runtime
from host import Guest, Ticker, Timers
from wasmtime import _bindings as ffi
from wasmtime.component import Linker
from wasmtime.component._instance import Instance

SLICE_NS = 2_000_000

# A continuation is `bool f(void *env)`, polled by wasmtime. strlen is one already written in C: over a two-byte buffer
# it answers 0 or 1, which spares two calls into Python for every wait.
IS_DUE = ffi.wasmtime_func_async_continuation_callback_t(cast(ctypes.CDLL(None).strlen, c_void_p).value)
WAITING, DUE = b"\0", b"\1"


class Fibre(Guest):
    """A guest with its store, its call in progress and the memory both refer to."""

    store = function = future = results = None

    def start(self, engine, linker, component, source: str, memory_limit_bytes: int | None) -> None:
        self.due = create_string_buffer(2)
        self.store = runtime.make_store(engine, memory_limit_bytes)
        ffi.wasmtime_context_epoch_deadline_async_yield_and_update(self.store._context(), 1)
        self.function = self.instantiate(linker, component).get_func(self.store, "run")
        self.params, self.result = (abi.VAL * 1)(), abi.VAL()
        abi.encode_string(source, self.params[0])
        self.error = POINTER(ffi.wasmtime_error_t)()
        self.future = ffi.wasmtime_component_func_call_async(
            byref(self.function._func), self.store._context(), self.params, 1, byref(self.result), 1, byref(self.error)
        )

    def instantiate(self, linker, component) -> Instance:
        instance, error = ffi.wasmtime_component_instance_t(), POINTER(ffi.wasmtime_error_t)()
        future = ffi.wasmtime_component_linker_instantiate_async(
            linker.ptr(), self.store._context(), component.ptr(), byref(instance), byref(error)
        )
        while not ffi.wasmtime_call_future_poll(future):
            pass
        ffi.wasmtime_call_future_delete(future)
        abi.raise_on(error)
        return Instance._from_raw(instance)

    def finish(self) -> str:
        if self.error:
            error = abi.WasmtimeError._from_ptr(self.error)
            self.error = None
            return f"trap: {error}"
        return abi.decode_string(self.result)

    def close(self) -> None:
        """Also for a guest that is suspended in the middle: wasmtime unwinds its fibre."""
        ffi.wasmtime_call_future_delete(self.future)
        ffi.wasmtime_component_val_delete(byref(self.params[0]))
        ffi.wasmtime_component_val_delete(byref(self.result))
        self.store.close()
        self.store = self.future = self.results = None


class FibreHost:
    kind = "fibres"

    def __init__(self, wire):
        self.wire = wire
        self.engine = runtime.make_engine()
        self.component = runtime.load(self.engine)
        self.handles = itertools.count(1)
        self.owners: dict[int, Fibre] = {}
        self.outbox: list[int] = []
        self.ready: deque[Fibre] = deque()
        self.timers = Timers()
        self.guests: set[Fibre] = set()
        self.running: Fibre | None = None
        self.wake_ns: list[int] = []
        self.linker = self.make_linker()
        self.ticker = Ticker(self.engine)

    def make_linker(self) -> Linker:
        linker = Linker(self.engine)
        # The synchronous WASI, on purpose: of the asynchronous one, any wait ends this process, since wasmtime looks
        # for a Tokio runtime that only Rust could give it. This one makes the host wait instead.
        linker.add_wasip2()
        with linker.root() as root, root.add_instance(abi.INTERFACE) as core:
            self.callbacks = [
                abi.add_func(core, "submit", self.on_submit),
                abi.add_func(core, "take", self.on_take),
                ffi.wasmtime_component_func_async_callback_t(self.on_wait),
            ]
            abi.raise_on(
                ffi.wasmtime_component_linker_instance_add_func_async(
                    core.ptr(), create_string_buffer(b"wait-any"), 8, self.callbacks[-1], None, abi.NO_FINALIZER
                )
            )
        return linker

    # Called by guests, on their fibre: nothing here may wait.

    def on_submit(self, args, results) -> None:
        handle = next(self.handles)
        self.owners[handle] = self.running
        self.outbox.append(handle)
        abi.encode_u64(handle, results[0])

    def on_take(self, args, results) -> None:
        handle = args[0].of.u64
        del self.running.answers[handle]
        abi.encode_string("17", results[0])

    def on_wait(self, _env, _context, _type, args, _nargs, results, _nresults, error, continuation) -> None:
        try:
            self.begin_wait(self.running, abi.decode_u64s(args[0]), abi.decode_optional_u32(args[1]), results)
            out = continuation[0]
            out.callback, out.env, out.finalizer = IS_DUE, ctypes.addressof(self.running.due), abi.NO_FINALIZER
        except BaseException as failure:
            error[0] = ffi.wasmtime_error_new(repr(failure).encode())

    def begin_wait(self, guest: Fibre, handles: list[int], timeout_ms: int | None, results) -> None:
        guest.awaited, guest.results = handles, results
        guest.wait_number += 1
        guest.due[0] = WAITING
        if timeout_ms == 0 or guest.is_due():
            self.end_wait(guest)
        elif timeout_ms is not None:
            self.timers.add(guest, timeout_ms)

    def end_wait(self, guest: Fibre) -> None:
        """wasmtime keeps a call's results writable until its continuation says it is done."""
        abi.encode_u64s(guest.collect(), guest.results[0])
        guest.due[0] = DUE

    # Called by the owner of the host.

    def spawn(
        self, name: str, source: str, memory_limit_bytes: int | None = None, cpu_limit_s: float | None = None
    ) -> Fibre:
        guest = Fibre(name, cpu_limit_s)
        guest.start(self.engine, self.linker, self.component, source, memory_limit_bytes)
        self.guests.add(guest)
        self.ready.append(guest)
        return guest

    def answer(self, handles: list[int], available_ns: int) -> None:
        for handle in handles:
            guest = self.owners.pop(handle, None)
            if guest in self.guests:
                guest.answers[handle] = available_ns
                self.wake_if_due(guest)

    def wake_if_due(self, guest: Fibre) -> None:
        if guest.awaited is not None and guest.is_due() and guest.due[0] == WAITING:
            self.ready.append(guest)
            guest.due[0] = DUE  # queued once; the results are written when it is polled

    def cancel(self, guest: Fibre) -> None:
        guest.is_cancelled = True
        self.wake_if_due(guest)

    def kill(self, guest: Fibre, reason: str) -> None:
        guest.outcome = guest.outcome or f"killed: {reason}"
        self.guests.discard(guest)
        if guest in self.ready:
            self.ready.remove(guest)
        guest.close()

    def poll(self, guest: Fibre) -> None:
        if guest.awaited is not None:
            self.note_wake(guest)
            self.end_wait(guest)
        self.running = guest
        self.ticker.enter()
        start = time.thread_time_ns()
        is_done = ffi.wasmtime_call_future_poll(guest.future)
        guest.cpu_ns += time.thread_time_ns() - start
        self.running = None
        self.ticker.leave()
        if is_done:
            guest.outcome = guest.finish()
            self.kill(guest, "done")
        elif guest.awaited is None:
            self.after_preemption(guest)

    def after_preemption(self, guest: Fibre) -> None:
        if guest.cpu_limit_s is not None and guest.cpu_ns > guest.cpu_limit_s * 1e9:
            self.kill(guest, "cpu_limit")
        else:
            self.ready.append(guest)

    def note_wake(self, guest: Fibre) -> None:
        available = [guest.answers[h] for h in guest.awaited if h in guest.answers]
        if available:
            self.wake_ns.append(time.monotonic_ns() - max(available))

    def flush(self) -> None:
        if self.outbox:
            self.wire.send(self.outbox)
            self.outbox = []

    def run_slice(self) -> None:
        """Guests that are ready, in turn, but no longer than a slice: answers and requests must not wait for all."""
        end = time.monotonic_ns() + SLICE_NS
        while self.ready and time.monotonic_ns() < end:
            self.poll(self.ready.popleft())

    def run_until_idle(self) -> None:
        while self.ready:
            self.run_slice()

    def step(self, max_wait_ms: int = 1000) -> None:
        self.run_slice()
        self.flush()
        if not self.guests:
            return
        limit = 0 if self.ready else self.timers.timeout_ms()
        received = self.wire.receive(max_wait_ms if limit is None else min(limit, max_wait_ms))
        while received:
            available_ns, handles = received
            self.answer(handles, available_ns)
            received = self.wire.receive(0)
        for guest in self.timers.expired():
            guest.is_timed_out = True
            self.wake_if_due(guest)

    def run(self, until_s: float | None = None) -> None:
        end = None if until_s is None else time.monotonic() + until_s
        while self.guests and (end is None or time.monotonic() < end):
            self.step(1000 if end is None else max(1, int((end - time.monotonic()) * 1000)))
