"""Threads: every guest has one, and a baton says which of them runs.

The baton goes straight to the next ready guest, so an answer for hundreds of guests wakes them one after another and
not all at once for one lock.
"""

import ctypes
import itertools
import threading
import time
from collections import deque
from ctypes import CFUNCTYPE, POINTER, c_size_t, c_void_p

import abi
import runtime
from host import Guest, Ticker, Timers
from wasmtime import WasmtimeError
from wasmtime import _bindings as ffi
from wasmtime.component import Linker

FLUSH_NS = 2_000_000
EPOCH_CALLBACK = CFUNCTYPE(
    c_size_t, POINTER(ffi.wasmtime_context_t), c_void_p, POINTER(ctypes.c_uint64), POINTER(ctypes.c_uint8)
)
CONTINUE = 0
THREAD_STACK_BYTES = 2 << 20


class Worker(Guest):
    """A guest and the thread it lives on."""

    kill_reason: str | None = None
    is_queued = False

    def prepare(self, host: "ThreadHost", source: str, memory_limit_bytes: int | None) -> None:
        self.turn = threading.Event()
        self.store = runtime.make_store(host.engine, memory_limit_bytes)
        self.epoch_callback = EPOCH_CALLBACK(lambda *args: host.on_epoch(self, *args))
        ffi.wasmtime_store_epoch_deadline_callback(self.store.ptr(), self.epoch_callback, None, abi.NO_FINALIZER)
        self.function = host.linker.instantiate(self.store, host.component).get_func(self.store, "run")
        self.thread = threading.Thread(target=host.live, args=(self, source), daemon=True, name=self.name)


class ThreadHost:
    kind = "threads"

    def __init__(self, wire):
        threading.stack_size(THREAD_STACK_BYTES)
        self.wire = wire
        self.engine = runtime.make_engine()
        self.component = runtime.load(self.engine)
        self.handles = itertools.count(1)
        self.owners: dict[int, Worker] = {}
        self.outbox: list[int] = []
        self.ready: deque[Worker] = deque()
        self.timers = Timers()
        self.guests: set[Worker] = set()
        self.running: Worker | None = None
        self.may_flush = False
        self.flush_at_ns = 0
        self.wake_ns: list[int] = []
        self.mutex = threading.Lock()  # over everything above
        self.is_idle = threading.Condition(self.mutex)
        self.linker = self.make_linker()
        self.ticker = Ticker(self.engine)

    def make_linker(self) -> Linker:
        linker = Linker(self.engine)
        linker.add_wasip2()
        with linker.root() as root, root.add_instance(abi.INTERFACE) as core:
            self.callbacks = [
                abi.add_func(core, name, body)
                for name, body in (("submit", self.on_submit), ("take", self.on_take), ("wait-any", self.on_wait))
            ]
        return linker

    # Called by guests, each on its own thread, by the one that holds the baton.

    def on_submit(self, args, results) -> None:
        with self.mutex:
            handle = next(self.handles)
            self.owners[handle] = self.running
            self.outbox.append(handle)
        abi.encode_u64(handle, results[0])

    def on_take(self, args, results) -> None:
        with self.mutex:
            del self.running.answers[args[0].of.u64]
        abi.encode_string("17", results[0])

    def on_wait(self, args, results) -> None:
        guest = self.running
        with self.mutex:
            guest.awaited, guest.wait_number = abi.decode_u64s(args[0]), guest.wait_number + 1
            timeout_ms = abi.decode_optional_u32(args[1])
            must_wait = timeout_ms != 0 and not guest.is_due()
            if must_wait:
                if timeout_ms is not None:
                    self.timers.add(guest, timeout_ms)
                guest.turn.clear()
                self.pass_baton()
        if must_wait:
            guest.turn.wait()
            self.check_killed(guest)
            self.note_wake(guest)
        abi.encode_u64s(guest.collect(), results[0])

    def on_epoch(self, guest: Worker, _context, _data, delta, kind) -> int:
        """A tick came while this guest ran: let its neighbours have a turn, or end it."""
        try:
            guest.cpu_ns = time.thread_time_ns()
            if guest.cpu_limit_s is not None and guest.cpu_ns > guest.cpu_limit_s * 1e9:
                guest.kill_reason = guest.kill_reason or "cpu_limit"
            self.check_killed(guest)
            self.give_way(guest)
            delta[0], kind[0] = 1, CONTINUE
            return 0
        except BaseException as error:
            return abi.error_address(str(error))

    def give_way(self, guest: Worker) -> None:
        with self.mutex:
            if not self.ready or self.running is not guest:  # a guest is instantiated before its first turn
                return
            guest.turn.clear()
            self.enqueue(guest)
            self.pass_baton()
        guest.turn.wait()
        self.check_killed(guest)

    def check_killed(self, guest: Worker) -> None:
        if guest.kill_reason:
            raise WasmtimeError(f"killed: {guest.kill_reason}")

    def live(self, guest: Worker, source: str) -> None:
        guest.turn.wait()
        try:
            guest.outcome = guest.function(guest.store, source)
        except BaseException as error:
            guest.outcome = f"killed: {guest.kill_reason}" if guest.kill_reason else f"trap: {error}"
        guest.cpu_ns = time.thread_time_ns()
        guest.store.close()
        with self.mutex:
            self.guests.discard(guest)
            self.pass_baton()

    # The baton; the mutex is held.

    def enqueue(self, guest: Worker) -> None:
        if not guest.is_queued:
            guest.is_queued = True
            self.ready.append(guest)

    def pass_baton(self) -> None:
        if time.monotonic_ns() > self.flush_at_ns:
            self.flush_locked()
        if self.ready:
            self.running = self.ready.popleft()
            self.running.is_queued = False
            self.ticker.enter()
            self.running.turn.set()
        else:
            self.running = None
            self.ticker.leave()
            self.flush_locked()
            self.is_idle.notify_all()

    def start_next(self) -> None:
        if self.running is None:
            self.pass_baton()

    def flush_locked(self) -> None:
        if self.outbox and self.may_flush:
            self.wire.send(self.outbox)
            self.outbox = []
        self.flush_at_ns = time.monotonic_ns() + FLUSH_NS

    def wake_if_due(self, guest: Worker) -> None:
        if guest.awaited is not None and guest.is_due():
            self.enqueue(guest)

    # Called by the owner of the host, on the thread that receives.

    def spawn(
        self, name: str, source: str, memory_limit_bytes: int | None = None, cpu_limit_s: float | None = None
    ) -> Worker:
        guest = Worker(name, cpu_limit_s)
        guest.prepare(self, source, memory_limit_bytes)
        guest.thread.start()
        with self.mutex:
            self.guests.add(guest)
            self.enqueue(guest)
        return guest

    def answer(self, handles: list[int], available_ns: int) -> None:
        with self.mutex:
            for handle in handles:
                guest = self.owners.pop(handle, None)
                if guest in self.guests:
                    guest.answers[handle] = available_ns
                    self.wake_if_due(guest)
            self.start_next()

    def cancel(self, guest: Worker) -> None:
        with self.mutex:
            guest.is_cancelled = True
            self.wake_if_due(guest)
            self.start_next()

    def kill(self, guest: Worker, reason: str) -> None:
        """The thread ends itself at its next wait or tick: only the owner of a store may close it."""
        with self.mutex:
            guest.kill_reason = reason
            if guest.awaited is not None:
                self.enqueue(guest)
            self.start_next()

    def note_wake(self, guest: Worker) -> None:
        available = [guest.answers[h] for h in guest.awaited if h in guest.answers]
        if available:
            self.wake_ns.append(time.monotonic_ns() - max(available))

    def flush(self) -> None:
        with self.mutex:
            self.may_flush = True
            self.flush_locked()

    def run_until_idle(self) -> None:
        with self.mutex:
            self.start_next()
            self.is_idle.wait_for(lambda: self.running is None and not self.ready)

    def step(self, max_wait_ms: int = 1000) -> None:
        with self.mutex:
            self.may_flush = True
            self.start_next()
            limit = self.timers.timeout_ms()
        received = self.wire.receive(max_wait_ms if limit is None else min(limit, max_wait_ms))
        while received:
            available_ns, handles = received
            self.answer(handles, available_ns)
            received = self.wire.receive(0)
        with self.mutex:
            for guest in self.timers.expired():
                guest.is_timed_out = True
                self.wake_if_due(guest)
            self.start_next()

    def run(self, until_s: float | None = None) -> None:
        end = None if until_s is None else time.monotonic() + until_s
        while self.guests and (end is None or time.monotonic() < end):
            self.step(20)
