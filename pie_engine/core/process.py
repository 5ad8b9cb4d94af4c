"""A core as a child of the daemon: the loop on ZeroMQ.

Messages are taken in between two steps, and everything that a step made goes out at its end, so a step never waits for
anybody. With nothing to run it sleeps until a message comes, a chunk is due or statistics are.
"""

from __future__ import annotations

import gc
import logging
import os
import time

import msgspec
import zmq

from pie_engine.config import ModelSection
from pie_engine.core.device_use import device_meter
from pie_engine.core.links import AdapterLinks
from pie_engine.core.load import load_core
from pie_engine.core.loop import Core, DeviceFailed
from pie_engine.core.orders import Orders
from pie_engine.core.reports import Reports
from pie_engine.errors import InvalidConfig, PieError
from pie_engine.ipc.child import Child, be_born
from pie_engine.ipc.link import Hub, Link
from pie_engine.ipc.memory import give_memory_back, let_go_of_libraries
from pie_engine.protocol.to_core import CoreMessage, CoreOrder, ListContexts, ReportEvery
from pie_engine.protocol.to_daemon import Member, Shutdown, Topology
from pie_engine.protocol.to_gateway import ContextList, CoreStats

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.001
EXIT_DEVICE_FAILED = 75


class CoreProcess:
    """The links of a core, and its main loop."""

    def __init__(self, child: Child, core: Core, orders: Orders, reports: Reports, detail: dict[str, object]) -> None:
        """`detail`: what the other processes know of this core, adapters aside."""
        self._child = child
        self._core = core
        self._orders = orders
        self._reports = reports
        self._detail = detail
        self._hub: Hub[CoreMessage] = Hub(child.context, child.birth.address, child.birth.boot_id, CoreMessage)
        self._gateway: Link[CoreOrder] | None = None
        self._hosts: set[str] = set()
        self._dead_hosts: set[str] = set()
        self._num_steps_checked = 0
        self._is_stopping = False
        self._poller = zmq.Poller()
        for socket in (self._hub.socket, child.home.socket):
            self._poller.register(socket, zmq.POLLIN)

    def run(self) -> None:
        """Until the daemon says to end. Raises `DeviceFailed` after the hosts have been told."""
        while not self._is_stopping:
            self._wait()
            self._take_in()
            try:
                self._core.step()
            finally:
                self._send_out()
            self._reports.take(self._report)

    def close(self) -> None:
        self._hub.close()
        if self._gateway is not None:
            self._gateway.close()

    def say_ready(self) -> None:
        """To the daemon, which tells everybody; said again when something of it has changed."""
        self._child.ready(**self._detail, adapters=self._orders.listed())

    def _wait(self) -> None:
        """Sleep until there is something to do; not at all while something runs."""
        if not self._core.is_idle:
            return
        now = time.monotonic()
        until = min(self._reports.next_at, self._core.next_due_at or self._reports.next_at)
        if self._core.is_compiling or self._core.has_disk_work:
            until = min(until, now + LOOK_EVERY_S)
        # Rounded up: a chunk a millisecond late is better than a loop that spins until it is due.
        if not self._poller.poll(max(0, int((until - now) * 1000) + 1)):
            self._check_integrity()

    def _take_in(self) -> None:
        for message in self._child.home.receive():
            if isinstance(message, Topology):
                self._follow(message)
            elif isinstance(message, Shutdown):
                self._is_stopping = True
        if self._gateway is not None:
            for order in self._gateway.receive():
                self._carry_out(self._gateway, order)
        for host_boot, messages in self._hub.receive():
            # A frame may still be on its way when its sender's death has been told.
            if host_boot not in self._dead_hosts:
                self._core.receive(host_boot, messages)

    def _send_out(self) -> None:
        for host_boot, results in self._core.take_outgoing().items():
            self._hub.send(host_boot, results)

    def _carry_out(self, gateway: Link[CoreOrder], order: CoreOrder) -> None:
        if isinstance(order, ReportEvery):
            self._reports.set_interval(order.interval_s)
            return
        if isinstance(order, ListContexts):
            gateway.send([ContextList(order.request, self._core.contexts_of(order.pid))])
            return
        answer = self._orders.carry_out(order)
        if answer.error is None:
            self.say_ready()
        gateway.send([answer])

    def _follow(self, topology: Topology) -> None:
        # A host that is being started again has no boot id meanwhile.
        hosts = {member.boot_id for member in topology.members if member.role == "host" and member.boot_id}
        for boot_id in self._hosts - hosts:
            log.info("host %s is gone; its contexts are freed", boot_id)
            self._core.close_host(boot_id)
            self._hub.forget(boot_id)
            self._dead_hosts.add(boot_id)
        self._hosts = hosts
        gateways = (member for member in topology.members if member.role == "gateway" and member.is_ready)
        self._connect_gateway(next(gateways, None))

    def _connect_gateway(self, member: Member | None) -> None:
        boot_id = member.boot_id if member else None
        if self._gateway is not None and self._gateway.peer_boot != boot_id:
            self._poller.unregister(self._gateway.socket)
            self._gateway.close()
            self._gateway = None
        if self._gateway is None and member is not None:
            own_boot = self._child.birth.boot_id
            self._gateway = Link(self._child.context, member.address, own_boot, member.boot_id, CoreOrder)
            self._poller.register(self._gateway.socket, zmq.POLLIN)
            self._reports.begin()

    def _report(self, stats: CoreStats) -> None:
        # Programs that wait are told why, too.
        self._send_out()
        if self._gateway is not None:
            self._gateway.send([stats])

    def _check_integrity(self) -> None:
        """Once after work, when nothing has come for a while: it must not delay a program that runs pass after pass."""
        if self._num_steps_checked != self._core.num_steps:
            self._num_steps_checked = self._core.num_steps
            self._core.check_integrity()


def main() -> int:
    """Live as a core; the exit status is 0 after an orderly end."""
    child = be_born()
    os.environ["PIE_CACHE"] = str(child.config.paths.cache)
    try:
        section = _section(child)
        core, detail = load_core(section, child.config.paths, child.progress, child.config.scheduling)
        orders = Orders(core, section, AdapterLinks(child.config.paths.adapters, section.label))
        orders.restore()
        reports = Reports(core, device_meter(core.driver.capabilities.device))
        process = CoreProcess(child, core, orders, reports, detail)
    except PieError as error:
        child.fail_start(error)
        raise  # not reached
    # Everything loaded so far stays for good; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    give_memory_back()
    let_go_of_libraries()
    regions = child.config.paths.kv_regions(os.getpid())
    regions.write_bytes(msgspec.json.encode(core.kv_regions))
    process.say_ready()
    status = 0
    try:
        process.run()
    except DeviceFailed as error:
        log.error("the device has failed: %s", error)
        status = EXIT_DEVICE_FAILED
    regions.unlink(missing_ok=True)
    process.close()
    child.home.close()
    child.context.term()
    return status


def _section(child: Child) -> ModelSection:
    name = child.birth.name
    for section in child.config.models:
        if name == section.label:
            return section
    known = ", ".join(section.label for section in child.config.models)
    raise InvalidConfig(f"no model is called {name!r}; configured: {known}")
