"""One process as the gateway sees it, and whoever follows its events."""

from __future__ import annotations

import asyncio
import time

import msgspec

from pie_engine.errors import ErrorInfo
from pie_engine.gateway.sse import KEEP_ALIVE, Tail, frame
from pie_engine.protocol.http import ProcessState, ProcessUsage, ProcessView
from pie_engine.protocol.plan import Usage
from pie_engine.protocol.to_gateway import TRACE_KIND, Event, Settled
from pie_engine.store.records import ProcessRecord
from pie_engine.store.store import Store

MAX_PAGE_BYTES = 64 * 1024
MAX_PAGE_EVENTS = 256


class Process:
    """What changes about a process; `record` is what it was launched as."""

    def __init__(self, record: ProcessRecord, num_messages: int = 0, lane: str = "") -> None:
        self.record = record
        self.lane = lane
        """Which hosts it can go to: see `hosts`."""
        self.host_boot = record.host_boot
        self.host = record.host
        self.is_terminating = record.is_terminating
        self.is_paused = False
        self.endowment, self.bid = record.endowment, record.bid
        """As in the record, and as they were changed since."""
        self.ended = record.ended
        self.outcome = record.outcome
        self.usage = msgspec.json.decode(record.usage, type=Usage)
        self.settled: Settled | None = None
        """What it has paid in the end, if that was heard before its last event was stored."""
        self.num_messages = num_messages
        self.accepted_seq = record.last_seq
        """Newest event that has arrived."""
        self.stored_seq = record.last_seq
        """Newest event that is committed; only these are shown to anybody."""
        self.has_terminal = record.ended is not None
        """Its terminal event has arrived: nothing comes after it."""
        self.is_dispatched = False
        """Its host has been told of it."""
        self.admission: asyncio.Future[None] | None = None
        """Done when the launch is committed."""
        self.tail = Tail(record.last_seq)
        self.followers: set[Follower] = set()
        self.abandon_timer: asyncio.TimerHandle | None = None

    @property
    def id(self) -> int:
        return self.record.id

    @property
    def pid(self) -> str:
        return self.record.pid

    @property
    def is_ended(self) -> bool:
        return self.ended is not None

    @property
    def state(self) -> ProcessState:
        if self.is_ended:
            return "ended"
        if self.is_paused:
            return "paused"
        return "queued" if self.host_boot is None else "running"

    def error_event(self, info: ErrorInfo) -> Event:
        """The terminal event that the gateway writes when no host can."""
        return Event(self.pid, self.accepted_seq + 1, "error", msgspec.json.encode(info).decode(), time.time())

    def accept(self, event: Event) -> None:
        self.accepted_seq = event.seq
        self.has_terminal = event.is_terminal

    def show(self, event: Event) -> None:
        """The event is committed: followers may have it."""
        self.stored_seq = event.seq
        if event.is_terminal:
            self.ended, self.outcome, self.usage = event.time, outcome_of(event), event.usage
        if not self.followers:
            self.tail.forget(event.seq)
            return
        self.tail.push(event.seq, frame(event.seq, event.kind, event.data), is_trace=event.kind == TRACE_KIND)
        for follower in self.followers:
            follower.wake()

    def view(self, usage: ProcessUsage | None = None, activity: str = "") -> ProcessView:
        record = self.record
        if self.is_ended:
            usage = ProcessUsage.of(self.usage, pages=0, contexts=0, state="ended")
        return ProcessView(
            pid=record.pid,
            program=record.program,
            version=record.version,
            digest=record.digest,
            state=self.state,
            host=self.host,
            created=record.created,
            ended=self.ended,
            outcome=self.outcome,
            last_event=self.stored_seq,
            usage=usage,
            activity=activity or self.state,
            parent=record.parent,
        )


class Follower:
    """A cursor over the events of one process. The log waits for slow readers; nothing is queued for them."""

    def __init__(self, process: Process, store: Store, after: int, *, with_trace: bool = True) -> None:
        self.process = process
        self._with_trace = with_trace
        self.cursor = after
        self._store = store
        self._waiter: asyncio.Future[None] | None = None
        self._is_gone = False
        self._is_pinged = False

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def ping(self) -> None:
        """Send something if there is nothing to send, so that dead connections are noticed."""
        self._is_pinged = True
        self.wake()

    def leave(self) -> None:
        """The reader is gone."""
        self._is_gone = True
        self.wake()

    @property
    def is_at_end(self) -> bool:
        """The terminal event has been given out."""
        return self.process.is_ended and self.cursor >= self.process.stored_seq

    async def next(self) -> bytes | None:
        """The next piece of the stream as soon as there is one; None at its end."""
        while not self._is_gone:
            piece = self._read() if self.cursor < self.process.stored_seq else b""
            if not piece and self._is_pinged:
                piece = KEEP_ALIVE
            self._is_pinged = False
            if piece:
                return piece
            if self.is_at_end:
                return None
            await self._wait()
        return None

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _read(self) -> bytes:
        frames = self.process.tail.after(self.cursor, with_trace=self._with_trace)
        if frames is None:
            return self._read_store()
        self.cursor = self.process.stored_seq
        return b"".join(frames)

    def _read_store(self) -> bytes:
        """A page of events: as many as fit, at least one."""
        page, num_bytes = [], 0
        newest = self.process.stored_seq
        rows = self._store.events(self.process.id, self.cursor, MAX_PAGE_EVENTS, with_trace=self._with_trace)
        for row in rows:
            page.append(frame(row.seq, row.kind, row.data))
            num_bytes += len(page[-1])
            self.cursor = row.seq
            if num_bytes >= MAX_PAGE_BYTES:
                break
        else:
            if len(page) < MAX_PAGE_EVENTS:
                self.cursor = max(self.cursor, newest)  # what is left out counts as given
        rows.close()
        return b"".join(page)


def outcome_of(event: Event) -> str:
    """Of a terminal event: `return`, or the code of the error."""
    if event.kind == "return":
        return "return"
    try:
        return msgspec.json.decode(event.data, type=ErrorInfo).code
    except msgspec.DecodeError:
        return "error"
