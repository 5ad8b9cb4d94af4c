"""Who follows which process, and processes that have lost their last follower."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pie_engine.gateway.process import Follower, Process
from pie_engine.gateway.receipts import Receipts
from pie_engine.store.store import Store


class Audience:
    """All followers. `on_abandoned` is called for a process with `on_disconnect=terminate` that nobody has followed for
    `grace_s`."""

    def __init__(
        self, store: Store, receipts: Receipts, grace_s: float, on_abandoned: Callable[[Process], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._receipts = receipts
        self._grace_s = grace_s
        self._on_abandoned = on_abandoned
        self._followers: set[Follower] = set()

    @property
    def is_empty(self) -> bool:
        return not self._followers

    def join(self, process: Process, after: int, *, with_trace: bool = False) -> Follower:
        """From event `after` on. Whoever joins must leave."""
        if not process.followers:
            # The tail was not kept while nobody looked.
            process.tail.forget(process.stored_seq)
        follower = Follower(process, self._store, after, with_trace=with_trace)
        process.followers.add(follower)
        self._followers.add(follower)
        self.stop_watch(process)
        return follower

    def leave(self, follower: Follower) -> None:
        process = follower.process
        self._followers.discard(follower)
        process.followers.discard(follower)
        self.watch(process)

    def seen(self, follower: Follower) -> None:
        """Its client has been sent everything up to its cursor."""
        process = follower.process
        if process.host_boot is not None and not process.has_terminal:
            self._receipts.seen(process.host_boot, process.pid, follower.cursor)

    def ping(self) -> None:
        for follower in self._followers:
            follower.ping()

    def watch(self, process: Process, extra_s: float = 0.0) -> None:
        """If nobody follows it and it shall not live alone, its time runs from now on."""
        if process.record.on_disconnect != "terminate" or process.followers or process.has_terminal:
            return
        if process.abandon_timer is None:
            process.abandon_timer = self._loop.call_later(self._grace_s + extra_s, self._abandon, process)

    def stop_watch(self, process: Process) -> None:
        if process.abandon_timer is not None:
            process.abandon_timer.cancel()
            process.abandon_timer = None

    def _abandon(self, process: Process) -> None:
        process.abandon_timer = None
        if not process.followers:
            self._on_abandoned(process)
