"""The routes by which people and machines look at the engine: a snapshot, a stream of them, contexts of a process."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec

from pie_engine.errors import InvalidInput, Lost
from pie_engine.gateway.exchange import Exchange
from pie_engine.gateway.http import STREAM_HEADERS, Receive, Reply, Request
from pie_engine.gateway.lookers import Lookers
from pie_engine.gateway.process import Process
from pie_engine.gateway.snapshots import Snapshots
from pie_engine.protocol.stats import (
    DEFAULT_INTERVAL_MS,
    MAX_INTERVAL_MS,
    MIN_INTERVAL_MS,
    SNAPSHOT_EVENT,
    ContextState,
    Snapshot,
)
from pie_engine.protocol.to_core import ListContexts
from pie_engine.protocol.to_gateway import ContextList

CORE_PATIENCE_S = 10.0
"""A core answers between two steps."""
_encode = msgspec.json.Encoder().encode


class Looking:
    """Answers them."""

    def __init__(self, exchange: Exchange, snapshots: Snapshots, lookers: Lookers) -> None:
        self._exchange = exchange
        self._snapshots = snapshots
        self._lookers = lookers

    async def snapshot(self, reply: Reply, user: str) -> None:
        await reply.json(200, self.take(user))

    def take(self, user: str) -> Snapshot:
        """How things are now."""
        return self._snapshots.take(user)

    async def stream(self, request: Request, reply: Reply, user: str) -> None:
        """Snapshots until the client goes. One that reads slowly misses some: the next one is made when the last is
        on its way, and nothing is kept for anybody."""
        interval_s = _interval_ms(request) / 1000
        gone = asyncio.create_task(_gone(request.receive))
        try:
            await reply.begin(200, STREAM_HEADERS)
            with self._lookers.looking(interval_s):
                before: float | None = None
                due = time.monotonic()
                while not gone.done():
                    snapshot = self._snapshots.take(user, before)
                    before = snapshot.at
                    await reply.write(b"event: " + SNAPSHOT_EVENT.encode() + b"\ndata: " + _encode(snapshot) + b"\n\n")
                    due = max(due + interval_s, time.monotonic())
                    if not await self._lookers.wait(due - time.monotonic()):
                        break
            await reply.finish()
        finally:
            gone.cancel()

    async def contexts(self, process: Process) -> list[ContextState]:
        """Of all cores; forks behind what they were forked from. Raises `Lost` when a core does not answer."""
        cores = [member for member in self._exchange.members if member.role == "core" and member.is_ready]
        answers = await asyncio.gather(*(self._contexts_in(core.boot_id, core.name, process.pid) for core in cores))
        return [context for contexts in answers for context in contexts]

    async def _contexts_in(self, core_boot: str, model: str, pid: str) -> list[ContextState]:
        order = ListContexts(next(self._exchange.requests), pid)
        try:
            answer = await asyncio.wait_for(self._exchange.ask_core(core_boot, order), CORE_PATIENCE_S)
        except TimeoutError:
            message = f"the core of model {model} has not answered for {CORE_PATIENCE_S:g} s"
            raise Lost.of("core_lost", message, hint="try again in a moment") from None
        assert isinstance(answer, ContextList)
        return answer.contexts


def _interval_ms(request: Request) -> int:
    interval_ms = request.int_query("interval_ms")
    if interval_ms is None:
        return DEFAULT_INTERVAL_MS
    if not MIN_INTERVAL_MS <= interval_ms <= MAX_INTERVAL_MS:
        raise InvalidInput(f"`interval_ms` has to be from {MIN_INTERVAL_MS} to {MAX_INTERVAL_MS}; got {interval_ms}")
    return interval_ms


async def _gone(receive: Receive) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
