"""What the owner of a process wants of it on its way: messages, pauses, credits, and its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pie_engine.errors import Cancelled, ErrorInfo
from pie_engine.gateway.problems import Conflict
from pie_engine.gateway.process import Process
from pie_engine.gateway.quotas import Quotas
from pie_engine.gateway.turn import Then, Turn, nothing
from pie_engine.protocol.to_host import BidForProcess, Deliver, EndowProcess, Pause, Resume, Terminate
from pie_engine.store.store import Store

log = logging.getLogger(__name__)


class Orders:
    """Kept by the store, told to the host of the process if it has one, and told again when it gets one."""

    def __init__(self, store: Store, turn: Turn, quotas: Quotas, end: Callable[[Process, ErrorInfo], None]) -> None:
        """`end`: ends a process that no host knows."""
        self._store = store
        self._turn = turn
        self._quotas = quotas
        self._end = end
        self._changing_credits = asyncio.Lock()
        """One change at a time: the next one begins with what is committed, also where the database has refused."""

    def say_again(self, process: Process) -> None:
        """All that a host has to hear that is new to the process, or may not have heard. Twice does no harm."""
        assert process.host_boot is not None
        if process.num_messages:
            for seq, value in self._store.messages(process.id):
                self._turn.say(process.host_boot, Deliver(process.pid, seq, value))
        if process.is_paused:
            self._turn.say(process.host_boot, Pause(process.pid))
        if process.is_terminating:
            self._turn.say(process.host_boot, Terminate(process.pid))

    # What its owner wants.

    async def message(self, process: Process, value: str) -> int:
        """Number of the message, once it is committed."""
        _check_lives(process)
        process.num_messages += 1
        seq = process.num_messages
        await self._turn.write(
            lambda store: store.add_message(process.id, seq, value), lambda: self._deliver(process, seq, value)
        )
        return seq

    def _deliver(self, process: Process, seq: int, value: str) -> None:
        if process.is_dispatched and process.host_boot is not None and not process.has_terminal:
            self._turn.say(process.host_boot, Deliver(process.pid, seq, value))

    def pause(self, process: Process) -> None:
        """Its program does not run until `resume`; one that is queued begins paused. Again: nothing.

        Raises `Conflict` when it has ended, or is ending.
        """
        if process.is_terminating and not process.has_terminal:
            raise Conflict(f"process `{process.pid}` is ending")
        self._set_paused(process, True, Pause(process.pid))

    def resume(self, process: Process) -> None:
        """Raises `Conflict` when it has ended."""
        self._set_paused(process, False, Resume(process.pid))

    def _set_paused(self, process: Process, is_paused: bool, order: Pause | Resume) -> None:
        _check_lives(process)
        if process.is_paused != is_paused:
            process.is_paused = is_paused
            if process.is_dispatched and process.host_boot is not None:
                self._turn.say(process.host_boot, order)

    async def endow(self, process: Process, amount: int) -> None:
        """`amount` micro-credits more, in each model; returns when it is committed.

        Raises `InvalidInput` and `LimitExceeded` with the numbers when that is more than its user may have, `Conflict`
        when it has ended.
        """
        async with self._changing_credits:
            endowment, user = self._quotas.more(process, amount), process.record.user
            self._quotas.check_hour(user, amount)
            order = EndowProcess(process.pid, endowment)
            await self._set_credits(process, endowment, process.bid, order, lambda: self._quotas.give(user, amount))

    async def bid(self, process: Process, bid: int | None) -> None:
        """What all its contexts bid from now on, in micro-credits for a page and a step; None: it bids for itself
        again. Returns when it is committed. Raises `Conflict` when it has ended."""
        async with self._changing_credits:
            await self._set_credits(process, process.endowment, bid, BidForProcess(process.pid, bid))

    async def _set_credits(
        self,
        process: Process,
        endowment: int,
        bid: int | None,
        order: EndowProcess | BidForProcess,
        then: Then = nothing,
    ) -> None:
        _check_lives(process)

        def committed() -> None:
            process.endowment, process.bid = endowment, bid
            if process.is_dispatched and process.host_boot is not None and not process.has_terminal:
                self._turn.say(process.host_boot, order)
            then()

        await self._turn.write(lambda store: store.set_credits(process.id, endowment, bid), committed)

    async def terminate(self, process: Process) -> None:
        """Returns when the wish is committed; the host, or the queue, does the rest. Again: nothing."""
        if process.has_terminal or process.is_terminating:
            return
        process.is_terminating = True
        done = self._turn.write(lambda store: store.mark_terminating(process.id), lambda: self._tell_terminate(process))
        try:
            await done
        except Exception:
            process.is_terminating = False
            raise

    def _tell_terminate(self, process: Process) -> None:
        process.is_paused = False
        if process.host_boot is None:
            self._end(process, Cancelled("terminated before it was started").info)
        elif process.is_dispatched:
            self._turn.say(process.host_boot, Terminate(process.pid))

    def abandon(self, process: Process) -> None:
        """End one that has lost its last client."""
        if process.has_terminal or process.is_terminating:
            return
        log.info("process %s has lost its last client", process.pid)
        process.is_terminating = True
        self._turn.insist(lambda store: store.mark_terminating(process.id), lambda: self._tell_terminate(process))


def _check_lives(process: Process) -> None:
    if process.has_terminal:
        raise Conflict(f"process `{process.pid}` has ended", hint=f"`pie logs {process.pid}` shows how")
