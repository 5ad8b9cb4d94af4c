"""What both runners share: a guest's operations, the clock of waits, and the wire to the batcher."""

import heapq
import itertools
import threading
import time
from dataclasses import dataclass, field

import msgspec
import zmq

CANCELLED = 0
TICK_S = 0.010


class Wire:
    """One message carries everything that is ready, in both directions."""

    def __init__(self, to_batcher: str, from_batcher: str, host_index: int):
        self.context = zmq.Context()
        self.out = self.context.socket(zmq.PUSH)
        self.out.connect(to_batcher)
        self.incoming = self.context.socket(zmq.PULL)
        self.incoming.bind(from_batcher)
        self.host_index = host_index

    def send(self, handles: list[int]) -> None:
        self.out.send(msgspec.msgpack.encode((self.host_index, handles)))

    def receive(self, timeout_ms: int | None) -> tuple[int, list[int]] | None:
        """(when the answers were available, monotonic ns; the answered handles)"""
        if not self.incoming.poll(timeout_ms):
            return None
        return msgspec.msgpack.decode(self.incoming.recv(), type=tuple[int, list[int]])


class NoWire:
    """For checks: nobody answers but the check itself."""

    def send(self, handles: list[int]) -> None:
        pass

    def receive(self, timeout_ms: int | None) -> None:
        if timeout_ms:
            time.sleep(timeout_ms / 1000)


@dataclass(eq=False)
class Guest:
    name: str
    cpu_limit_s: float | None = None
    answers: dict[int, int] = field(default_factory=dict)  # handle: when its answer was available (ns)
    awaited: list[int] | None = None  # None while it runs
    wait_number: int = 0
    is_cancelled: bool = False
    is_timed_out: bool = False
    cpu_ns: int = 0
    outcome: str | None = None

    def is_due(self) -> bool:
        return self.is_cancelled or self.is_timed_out or any(h in self.answers for h in self.awaited or ())

    def collect(self) -> list[int]:
        """The handles a wait returns now; a cancellation is told once."""
        ready = [handle for handle in self.awaited or () if handle in self.answers]
        if self.is_cancelled:
            ready.append(CANCELLED)
        self.is_cancelled = self.is_timed_out = False
        self.awaited = None
        return ready


class Ticker:
    """Advances the epoch when one guest has run through a whole tick.

    By the clock alone, whoever has waited longer than a tick would be preempted as soon as it goes on.
    """

    def __init__(self, engine):
        self.engine = engine
        self.num_runs = 0
        self.is_inside = False
        threading.Thread(target=self.tick, daemon=True).start()

    def enter(self) -> None:
        self.num_runs += 1
        self.is_inside = True

    def leave(self) -> None:
        self.is_inside = False

    def tick(self) -> None:
        while True:
            num_runs = self.num_runs
            time.sleep(TICK_S)
            if self.is_inside and num_runs == self.num_runs:
                self.engine.increment_epoch()


class Timers:
    """Deadlines of waits; an entry whose wait is over is skipped when it comes up."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Guest, int]] = []
        self.sequence = itertools.count()

    def add(self, guest: Guest, timeout_ms: int) -> None:
        entry = (time.monotonic() + timeout_ms / 1000, next(self.sequence), guest, guest.wait_number)
        heapq.heappush(self.heap, entry)

    def expired(self) -> list[Guest]:
        now, guests = time.monotonic(), []
        while self.heap and self.heap[0][0] <= now:
            *_, guest, wait_number = heapq.heappop(self.heap)
            if guest.awaited is not None and guest.wait_number == wait_number:
                guests.append(guest)
        return guests

    def timeout_ms(self) -> int | None:
        if not self.heap:
            return None
        return max(0, int((self.heap[0][0] - time.monotonic()) * 1000 + 0.999))
