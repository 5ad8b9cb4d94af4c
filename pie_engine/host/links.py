"""The sockets of a host: to the daemon, to the gateway and to every core, as the topology has them."""

from __future__ import annotations

import logging
from typing import Any

import zmq

from pie_engine.host.host import Host
from pie_engine.host.models import HostModel, adapters_of_detail
from pie_engine.ipc.child import Child
from pie_engine.ipc.link import Link
from pie_engine.protocol.to_daemon import ChildMessage, Member, Topology
from pie_engine.protocol.to_gateway import HostReport
from pie_engine.protocol.to_host import CoreResult, GatewayOrder

log = logging.getLogger(__name__)


class Links:
    """Connects what comes up, closes what is gone, and tells the host of both."""

    def __init__(self, child: Child, host: Host) -> None:
        self._child = child
        self._host = host
        self._gateway: Link[GatewayOrder] | None = None
        self._cores: dict[str, Link[CoreResult]] = {}
        self._arrived: set[Any] = set()
        self._outside: dict[int, bool] = {}
        self._poller = zmq.Poller()
        self._poller.register(child.home.socket, zmq.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Until something arrives, but no longer; whether it has."""
        if self._outside or self._host.guests.sockets:
            self._watch_outside(self._host.guests.sockets)
        # Rounded up: to wake a little late is better than to spin until it is time.
        self._arrived = {socket for socket, _ in self._poller.poll(int(seconds * 1000 + 0.999))}
        return bool(self._arrived)

    def receive(self) -> None:
        """Hand everything that has arrived to the host."""
        if self._gateway is not None and self._gateway.socket in self._arrived:
            for order in self._gateway.receive():
                self._host.receive_order(order)
        for boot_id, link in self._cores.items():
            if link.socket in self._arrived:
                self._host.receive_results(boot_id, link.receive())
        for number in self._outside:
            if number in self._arrived:
                self._host.look_outside(number)

    def _watch_outside(self, sockets: dict[int, bool]) -> None:
        """The sockets of programs that run outside of the sandbox, as they are now."""
        for number in self._outside.keys() - sockets.keys():
            self._poller.unregister(number)
        for number, has_unsent in sockets.items():
            self._poller.register(number, zmq.POLLIN | zmq.POLLOUT if has_unsent else zmq.POLLIN)
        self._outside = sockets

    def receive_from_daemon(self) -> list[ChildMessage]:
        home = self._child.home
        return home.receive() if home.socket in self._arrived else []

    def send(self) -> None:
        """Everything that the host has to say, one frame for each link."""
        for boot_id, messages in self._host.take_messages().items():
            self._cores[boot_id].send(messages)
        if self._gateway is not None:
            reports = self._host.take_reports()
            if reports:
                self._gateway.send(reports)

    def report(self, report: HostReport) -> None:
        if self._gateway is not None:
            self._gateway.send([report])

    def follow(self, topology: Topology) -> None:
        """The daemon says who is there."""
        ready = {member.boot_id: member for member in topology.members if member.is_ready}
        self._follow_cores({boot_id: member for boot_id, member in ready.items() if member.role == "core"})
        self._follow_gateway(next((member for member in ready.values() if member.role == "gateway"), None))

    def close(self) -> None:
        for core in self._cores.values():
            core.close()
        if self._gateway is not None:
            self._gateway.close()

    def _follow_cores(self, ready: dict[str, Member]) -> None:
        for boot_id in self._cores.keys() - ready.keys():
            # What it managed to say before it died still counts.
            link = self._cores.pop(boot_id)
            self._host.receive_results(boot_id, link.receive())
            self._drop(link)
            self._host.lose_core(boot_id)
            log.info("core %s is gone", boot_id)
        for boot_id in ready.keys() - self._cores.keys():
            self._add_core(ready[boot_id])
        for boot_id, member in ready.items():
            self._host.set_adapters(boot_id, adapters_of_detail(member.detail))

    def _add_core(self, member: Member) -> None:
        try:
            model = HostModel.of_detail(member.detail)
        except Exception:  # programs that need no model go on
            log.exception("the model of core %s cannot be used", member.name)
            return
        self._host.add_core(member.boot_id, model)
        self._cores[member.boot_id] = self._connect(member, CoreResult)

    def _follow_gateway(self, member: Member | None) -> None:
        if self._gateway is not None and (member is None or member.boot_id != self._gateway.peer_boot):
            self._drop(self._gateway)
            self._gateway = None
            self._host.lose_gateway()
            log.info("the gateway is gone")
        if self._gateway is None and member is not None:
            self._gateway = self._connect(member, GatewayOrder)
            self._gateway.send(self._host.gain_gateway())

    def _connect(self, member: Member, accepts: Any) -> Link[Any]:
        link: Link[Any] = Link(self._child.context, member.address, self._child.birth.boot_id, member.boot_id, accepts)
        self._poller.register(link.socket, zmq.POLLIN)
        return link

    def _drop(self, link: Link[Any]) -> None:
        self._poller.unregister(link.socket)
        link.close()
