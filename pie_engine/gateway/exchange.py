"""The gateway's end of ZeroMQ: what hosts, cores and the daemon say, and who of them is there."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zmq

from pie_engine.errors import ErrorInfo, Lost
from pie_engine.gateway.hosts import PYTHON, HostPool
from pie_engine.gateway.numbers import CoreNumbers
from pie_engine.gateway.programs import Programs
from pie_engine.gateway.table import ProcessTable, daemon_stopped, lost
from pie_engine.ipc.link import Hub, Link
from pie_engine.protocol.http import ProcessUsage
from pie_engine.protocol.to_core import AdapterOrder, ListContexts
from pie_engine.protocol.to_daemon import ChildMessage, Member, NeedHost, Shutdown, Topology
from pie_engine.protocol.to_gateway import (
    AdapterAnswer,
    ContextList,
    CoreStats,
    Described,
    Event,
    GatewayMessage,
    Generations,
    HostStats,
    LaunchChild,
    OrderAnswer,
    Registered,
    Settled,
)

log = logging.getLogger(__name__)

REGISTRATION_GRACE_S = 10.0
"""How long a new gateway waits for the hosts that it has heard of to register."""


class Wire:
    """A ZeroMQ socket on the loop. Its descriptor only says that something may have changed, once, so after every
    reading and every sending the socket itself is asked."""

    def __init__(self, socket: zmq.Socket[Any], on_readable: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._on_readable = on_readable
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, on_readable)
        self._loop.call_soon(on_readable)

    def check(self) -> None:
        """After a sending."""
        if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._loop.call_soon(self._on_readable)

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)


class Exchange:
    """Reads everything that arrives, and hands it to the table, the programs and whoever asks for numbers."""

    def __init__(self, hub: Hub[GatewayMessage], home: Link[ChildMessage]) -> None:
        self._loop = asyncio.get_running_loop()
        self._hub = hub
        self._home = home
        self.members: list[Member] = []
        self.incidents: list[str] = []
        self.numbers = CoreNumbers()
        self._early: dict[str, Registered] = {}
        """Registrations of hosts that the topology we have does not know yet."""
        self._known_boots: set[str] = set()
        self.shutdown_asked: asyncio.Future[float] = self._loop.create_future()
        """Done with the grace in seconds when the daemon says so."""
        self.is_stopping = False
        self.requests = itertools.count(1)
        """Numbers of orders that cores answer."""
        self._asked: dict[tuple[str, int], asyncio.Future[OrderAnswer]] = {}
        """Orders that cores have not answered: by boot id and request."""

    async def ask_core(self, core_boot: str, order: AdapterOrder | ListContexts) -> OrderAnswer:
        """What the core answers. Raises `Lost` when it dies before that."""
        key = (core_boot, order.request)
        self._asked[key] = self._loop.create_future()
        try:
            self.send(core_boot, [order])
            return await self._asked[key]
        finally:
            del self._asked[key]

    def connect(self, table: ProcessTable, programs: Programs, hosts: HostPool) -> None:
        """From here on everything that arrives is handled."""
        self._table, self._programs, self._hosts = table, programs, hosts
        hosts.need = self._need_host
        self._hub_wire = Wire(self._hub.socket, self._read)
        self._home_wire = Wire(self._home.socket, self._read)
        table.call_hosts()

    def send(self, host_boot: str, orders: Sequence[Any]) -> None:
        self._hub.send(host_boot, orders)
        self._hub_wire.check()

    def _need_host(self, user: str) -> None:
        self._home.send([NeedHost(user)])
        self._home_wire.check()

    def close(self) -> None:
        self._hub_wire.close()
        self._home_wire.close()
        self._hub.close()

    def usage_of(self, pid: str) -> ProcessUsage | None:
        """Of one process, over all cores."""
        parts = [usage for _, usage in self.numbers.usages() if usage.pid == pid]
        if not parts:
            return None
        return ProcessUsage(
            pages=sum(part.num_pages for part in parts),
            tokens=sum(part.num_tokens for part in parts),
            contexts=sum(part.num_contexts for part in parts),
            state=next((part.state for part in parts if part.state != "idle"), "idle"),
            prompt_tokens=sum(part.num_prompt for part in parts),
            cached_tokens=sum(part.num_cached for part in parts),
            drafted_tokens=sum(part.num_drafted for part in parts),
            accepted_tokens=sum(part.num_accepted for part in parts),
            host_pages=sum(part.num_host_pages for part in parts),
            pages_needed=sum(part.num_pages_needed for part in parts),
            bid=max(part.bid for part in parts),
            balance=sum(part.balance for part in parts),
            endowment=sum(part.endowment for part in parts),
            spent=sum(part.endowment - part.balance for part in parts),
        )

    # Arrivals.

    def _read(self) -> None:
        # The topology first: it says who of the senders below there is.
        for message in self._home.receive():
            if isinstance(message, Topology):
                self._take_topology(message)
            elif isinstance(message, Shutdown) and not self.shutdown_asked.done():
                self.is_stopping = True
                self.shutdown_asked.set_result(message.grace_s)
        for boot_id, messages in self._hub.receive():
            for arrived in messages:
                self._take(boot_id, arrived)

    def _take(self, boot_id: str, message: GatewayMessage) -> None:
        match message:
            case Event():
                self._table.take_event(boot_id, message)
            case Registered():
                self._early[boot_id] = message
                self._register_early()
            case LaunchChild():
                self._table.children.asked(boot_id, message)
            case Described():
                self._programs.described(message)
            case Settled():
                self._table.settle(message)
            case Generations():
                if self._table.telemetry is not None:
                    self._table.telemetry.tell(message)
            case HostStats():
                host = self._hosts.get(boot_id)
                if host is not None:
                    host.take(message)
            case CoreStats():
                self.numbers.take(boot_id, message, time.time())
            case AdapterAnswer(request) | ContextList(request):
                if (asked := self._asked.get((boot_id, request))) is not None and not asked.done():
                    asked.set_result(message)

    # Who is there.

    def _take_topology(self, topology: Topology) -> None:
        self.members, self.incidents = topology.members, topology.incidents
        boots = {member.boot_id for member in topology.members if member.boot_id}
        # What a dead host managed to say was sent before its death was noticed: hear it out first.
        dead = self._known_boots - boots
        if dead:
            for boot_id, messages in self._hub.receive():
                for message in messages:
                    self._take(boot_id, message)
        for boot_id in dead:
            self._bury(boot_id, is_blocked=boot_id in topology.blocked)
        self._known_boots = boots
        self._register_early()
        self._table.end_orphans(boots, lost("its host died while there was no gateway"))
        self._table.hosts_failed(_host_failures(topology.members))

    def _bury(self, boot_id: str, *, is_blocked: bool) -> None:
        self._hub.forget(boot_id)
        self.numbers.forget(boot_id)
        self._early.pop(boot_id, None)
        for (core_boot, _), asked in self._asked.items():
            if core_boot == boot_id and not asked.done():
                why = Lost.of("core_lost", "the core of the model died", hint="it is started again; try again")
                asked.set_exception(why)
        if boot_id in self._hosts:
            host = self._hosts.get(boot_id)
            error = _recycled(host.lane if host else PYTHON) if is_blocked else _host_lost()
            self._programs.host_died(boot_id, error)
            self._table.host_died(boot_id, daemon_stopped() if self.is_stopping else error.info)

    def _register_early(self) -> None:
        known = {member.boot_id: member for member in self.members if member.role == "host"}
        for boot_id in self._early.keys() & known.keys():
            host = self._hosts.add(boot_id, known[boot_id].name, known[boot_id].user)
            self._table.host_registered(host, self._early.pop(boot_id))

    async def settle_orphans(self) -> None:
        """A while after the start, what belongs to a host that is there but did not register is lost."""
        while not any(member.role == "host" and member.is_ready and not member.user for member in self.members):
            await asyncio.sleep(0.1)
        await asyncio.sleep(REGISTRATION_GRACE_S)
        self._table.end_orphans(set(self._hosts.boot_ids), lost("its host did not come back"))


def _host_lost() -> Lost:
    return Lost.of("host_lost", "the host that ran the process died", hint="it is started again")


def _recycled(lane: str) -> Lost:
    hint = "it is started again"
    if lane != PYTHON:
        hint = (
            "wait with `futures.wait-any`, not inside WASI, or raise `kill_grace_s` under [host] in the configuration"
        )
    message = "a program blocked the host where nothing can interrupt it, so the host was started anew"
    return Lost.of("host_recycled", message, hint=hint)


def _host_failures(members: list[Member]) -> dict[str, Lost]:
    """Why no host of a lane runs and none will, where that is so."""
    hosts = [member for member in members if member.role == "host"]
    failures = {}
    for lane in {member.user for member in hosts}:
        failed = [member.detail.get("failed") for member in hosts if member.user == lane]
        if all(failed):
            info = msgspec.convert(failed[0], ErrorInfo)
            what = "standalone components" if lane else "programs"
            failures[lane] = Lost.of("host_lost", f"no host runs {what} any more: {info.message}", hint=info.hint)
    return failures
