"""Group commit: everything that one turn of the loop wants to write is one transaction.

Answers, events and messages to hosts go out after it, so whatever anybody was told is in the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from pie_engine.errors import PieError
from pie_engine.gateway.problems import translated
from pie_engine.gateway.process import Process, outcome_of
from pie_engine.protocol.to_gateway import Event
from pie_engine.store.store import Store

log = logging.getLogger(__name__)

RETRY_S = 1.0

Change = Callable[[Store], None]
Then = Callable[[], None]
OnStored = Callable[[list[tuple[Process, Event]]], None]
Send = Callable[[str, Sequence[Any]], None]


def nothing() -> None:
    """For writes after which nothing follows."""


class Write(msgspec.Struct, frozen=True):
    change: Change
    then: Then
    done: asyncio.Future[None] | None = None
    """Who waits for it; None: nobody, it is tried until it succeeds."""


class Turn:
    """Collects what the current turn of the loop writes and says; both go out at its end."""

    def __init__(self, store: Store, send: Send, on_stored: OnStored) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._send = send
        self._on_stored = on_stored
        self._writes: list[Write] = []
        self._events: list[tuple[Process, Event]] = []
        self._orders: dict[str, list[Any]] = {}
        self._is_due = False

    def write(self, change: Change, then: Then = nothing) -> asyncio.Future[None]:
        """Done when `change` is committed. `then` runs right after that, before anything is sent to hosts."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._writes.append(Write(change, then, done))
        self._end_soon()
        return done

    def insist(self, change: Change, then: Then = nothing) -> None:
        """Like `write`, but kept and tried again when the database refuses."""
        self._writes.append(Write(change, then))
        self._end_soon()

    def append(self, process: Process, event: Event) -> None:
        """Kept and tried again, too; `on_stored` hears of it when it is committed."""
        process.accept(event)
        self._events.append((process, event))
        self._end_soon()

    def say(self, host_boot: str, order: Any) -> None:
        self._orders.setdefault(host_boot, []).append(order)
        self._end_soon()

    def end(self) -> None:
        """Commit, then tell. Runs by itself at the end of the turn."""
        # What the commit sets off is said in this turn and written in the next.
        self._is_due = True
        is_committed = self._commit() if self._writes or self._events else True
        orders, self._orders = self._orders, {}
        for host_boot, messages in orders.items():
            self._send(host_boot, messages)
        self._is_due = False
        if is_committed and (self._writes or self._events):
            self._end_soon()

    def _end_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.end)

    def _commit(self) -> bool:
        writes, self._writes = self._writes, []
        events, self._events = self._events, []
        try:
            self._store_all(writes, events)
        except Exception as error:
            self._refuse(writes, events, translated(error))
            return False
        for write in writes:
            _guarded(write.then)
            if write.done is not None and not write.done.done():
                write.done.set_result(None)
        if events:
            _guarded(partial(self._on_stored, events))
        return True

    def _store_all(self, writes: list[Write], events: list[tuple[Process, Event]]) -> None:
        with self._store.transaction():
            for write in writes:
                write.change(self._store)
            if events:
                self._store.add_events((process.id, event) for process, event in events)
            for process, event in events:
                if event.is_terminal:
                    self._store.end_process(process.id, event.time, outcome_of(event), event.usage)

    def _refuse(self, writes: list[Write], events: list[tuple[Process, Event]], error: PieError) -> None:
        self._writes = [write for write in writes if write.done is None]
        self._events = events
        for write in writes:
            if write.done is not None and not write.done.done():
                write.done.set_exception(error)
        if self._writes or self._events:
            self._loop.call_later(RETRY_S, self.end)


def _guarded(then: Then) -> None:
    """One follow-up that fails must not keep the others of its turn from theirs."""
    try:
        then()
    except Exception:
        log.exception("after a commit")
