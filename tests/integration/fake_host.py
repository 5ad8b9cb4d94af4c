"""A host that runs no code: it speaks the host's side of the protocol and does what the input says.

`input` is `{"do": [step, …]}`; a step is `["message", value]`, `["stdout", text]`, `["sleep", seconds]`,
`["many", count]` (messages 0 … count-1), `["receive"]` (waits for a message and sends it back), `["hang"]`
(until terminated), `["stubborn"]` (for ever, after a message), `["block"]` (the host gives up, as for a program that
blocks it), `["raise"]`, `["return", value]`, `["settle", spent, endowment, late]`
(what the market has taken is told after the end: right behind it, or when that is stored). A program without steps
returns null. A program whose main.py starts with `invalid` cannot be described.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from typing import Any

import zmq

from pie_engine.errors import ErrorInfo, Unsupported
from pie_engine.ipc.child import EXIT_BLOCKED, Child, be_born
from pie_engine.ipc.link import Link
from pie_engine.protocol.program import Parameter, Signature
from pie_engine.protocol.to_daemon import Shutdown, Topology
from pie_engine.protocol.to_gateway import Described, Event, HostStats, Registered, Settled
from pie_engine.protocol.to_host import (
    BidForProcess,
    Deliver,
    Describe,
    EndowProcess,
    EventsStored,
    GatewayOrder,
    Launch,
    Pause,
    Resume,
    Terminate,
)

WAIT = object()


class FakeProcess:
    def __init__(self, launch: Launch) -> None:
        self.pid = launch.pid
        self.program = launch.bundle.manifest
        self.steps = deque(json.loads(launch.input).get("do", []))
        self.seq = 0
        self.unstored: deque[Event] = deque()
        self.messages: deque[str] = deque()
        self.num_delivered = 0
        self.wake_at: float | None = None
        self.is_terminated = False
        self.is_paused = False
        self.is_stubborn = False
        self.is_ended = False
        self.credits = [launch.endowment, launch.priority, launch.bid]
        self.settled: Settled | None = None
        self.is_late = False
        self.emit("started", {"program": self.program.name, "version": self.program.version})

    def emit(self, kind: Any, value: object) -> None:
        self.seq += 1
        self.is_ended = kind in ("return", "error")
        self.unstored.append(Event(self.pid, self.seq, kind, json.dumps(value), time.time()))

    def fail(self, code: str, message: str) -> None:
        self.emit("error", {"code": code, "message": message})

    def run(self) -> None:
        """As far as it goes without waiting."""
        while not (self.is_ended or self.is_stubborn or self.is_paused):
            if self.is_terminated:
                self.fail("cancelled", "terminated")
            elif not self.steps:
                self.emit("return", None)
            elif self._step(*self.steps[0]) is WAIT:
                return
            else:
                self.steps.popleft()

    def _step(self, name: str, *args: Any) -> object:
        return getattr(self, f"do_{name}")(*args)

    def do_message(self, value: object) -> None:
        self.emit("message", value)

    def do_credits(self) -> None:
        """Endowment, priority and bid, in micro-credits."""
        self.emit("message", self.credits)

    def do_stdout(self, text: str) -> None:
        self.emit("stdout", text)

    def do_many(self, count: int) -> None:
        for number in range(count):
            self.emit("message", number)

    def do_sleep(self, seconds: float) -> object:
        if self.wake_at is None:
            self.wake_at = time.monotonic() + seconds
        if time.monotonic() < self.wake_at:
            return WAIT
        self.wake_at = None
        return None

    def do_receive(self) -> object:
        if not self.messages:
            return WAIT
        self.emit("message", json.loads(self.messages.popleft()))
        return None

    def do_hang(self) -> object:
        return WAIT

    def do_stubborn(self) -> object:
        self.emit("message", "here")
        self.is_stubborn = True
        return WAIT

    def do_block(self) -> None:
        os._exit(EXIT_BLOCKED)

    def do_raise(self) -> None:
        self.fail("exception", "ValueError: no")

    def do_settle(self, spent: int, endowment: int, is_late: bool) -> None:
        self.settled, self.is_late = Settled(self.pid, spent, endowment), is_late

    def do_return(self, value: object) -> None:
        self.emit("return", value)


class FakeHost:
    def __init__(self, child: Child) -> None:
        self.child = child
        self.gateway: Link[GatewayOrder] | None = None
        self.processes: dict[str, FakeProcess] = {}
        self.launched: set[str] = set()
        self.is_ending = False

    def run(self) -> None:
        self.child.ready()
        while not (self.is_ending and not self.processes):
            self.wait()
            for message in self.child.home.receive():
                if isinstance(message, Topology):
                    self.meet_gateway(message)
                elif isinstance(message, Shutdown):
                    self.end_all()
            if self.gateway:
                for order in self.gateway.receive():
                    self.obey(order)
            self.step()

    def wait(self) -> None:
        poller = zmq.Poller()
        for link in (self.child.home, self.gateway):
            if link:
                poller.register(link.socket, zmq.POLLIN)
        due = [process.wake_at for process in self.processes.values() if process.wake_at]
        poller.poll(max(0, round(1000 * (min(due) - time.monotonic()))) if due else 1000)

    def meet_gateway(self, topology: Topology) -> None:
        ready = [member for member in topology.members if member.role == "gateway" and member.is_ready]
        boot = ready[0].boot_id if ready else None
        if self.gateway and self.gateway.peer_boot != boot:
            self.gateway.close()
            self.gateway = None
        if boot and not self.gateway:
            own_boot = self.child.birth.boot_id
            self.gateway = Link(self.child.context, ready[0].address, own_boot, boot, GatewayOrder)
            unstored = [event for process in self.processes.values() for event in process.unstored]
            paused = [pid for pid, process in self.processes.items() if process.is_paused]
            self.gateway.send([Registered(list(self.processes), paused), *unstored, HostStats(0, 0, 0.0, 0)])

    def obey(self, order: GatewayOrder) -> None:
        process = self.processes.get(order.pid) if not isinstance(order, Describe) else None
        match order:
            case Launch(pid):
                if pid not in self.launched:
                    self.launched.add(pid)
                    process = self.processes[pid] = FakeProcess(order)
                    self.send(list(process.unstored))
            case Deliver(_, seq, value):
                if process and seq == process.num_delivered + 1:
                    process.num_delivered = seq
                    process.messages.append(value)
            case Terminate():
                if process:
                    process.is_terminated, process.is_paused = True, False
            case Pause() | Resume():
                if process:
                    process.is_paused = isinstance(order, Pause)
            case EndowProcess(_, endowment):
                if process:
                    process.credits[0] = endowment
            case BidForProcess(_, bid):
                if process:
                    process.credits[2] = bid
            case EventsStored(_, seq):
                if process:
                    self.forget(process, seq)
            case Describe():
                self.send([self.describe(order)])

    def forget(self, process: FakeProcess, seq: int) -> None:
        while process.unstored and process.unstored[0].seq <= seq:
            process.unstored.popleft()
        if process.is_ended and not process.unstored:
            del self.processes[process.pid]
            if process.settled and process.is_late:
                self.send([process.settled])

    def describe(self, order: Describe) -> Described:
        if order.bundle.files.get("main.py", "").startswith("invalid"):
            return Described(order.request, error=ErrorInfo("invalid_program", "main.py, line 1: invalid"))
        return Described(order.request, Signature("Does steps.", [Parameter("do", {"type": "array"}, False, [])]))

    def step(self) -> None:
        for process in self.processes.values():
            before = process.seq
            process.run()
            news: list[Any] = [event for event in process.unstored if event.seq > before]
            if news and process.is_ended and process.settled and not process.is_late:
                news.append(process.settled)
            self.send(news)

    def end_all(self) -> None:
        self.is_ending = True
        for process in self.processes.values():
            process.is_terminated = True

    def send(self, messages: list[Any]) -> None:
        if messages and self.gateway:
            self.gateway.send(messages)


if __name__ == "__main__":
    born = be_born()
    if born.config.host.warm_instances == 0:
        born.fail_start(Unsupported("no runtime here", hint="get one"))
    FakeHost(born).run()
    born.close()
