"""The host's loop without its sockets: launches programs, runs them in turn, and collects what is to be sent.

    receive_order(order)            from the gateway
    receive_results(boot, results)  from a core
    run(seconds)                    guests that are ready, one after another
    take_reports(), take_messages() what goes out

Everything happens on one thread, between two looks at the sockets, so that the same loop also runs inline in tests.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from pie_engine.config import MIB, EngineConfig
from pie_engine.errors import ErrorInfo, Lost, PieError, info_of
from pie_engine.host.activity import Activities
from pie_engine.host.core_results import CoreResults
from pie_engine.host.cores import Cores, core_lost
from pie_engine.host.ending import cancelled, ending_of
from pie_engine.host.events import EventLog, json_text
from pie_engine.host.family import awaited, bond_of
from pie_engine.host.generations import GenerationLog
from pie_engine.host.guests import Guests
from pie_engine.host.market import Settlements
from pie_engine.host.models import HostAdapter, HostModel
from pie_engine.host.outbox import Outbox
from pie_engine.host.process import Ending, Job, Process
from pie_engine.host.programs import ProgramCache
from pie_engine.host.runner import Guest, Status
from pie_engine.host.scheduler import Scheduler
from pie_engine.host.wall import WallLimits
from pie_engine.protocol.program import Bundle, Signature
from pie_engine.protocol.to_core import CoreMessage
from pie_engine.protocol.to_gateway import Activity, Described, HostReport, LaunchChild
from pie_engine.protocol.to_host import (
    BidForProcess,
    ChildRefused,
    CoreResult,
    Deliver,
    Describe,
    EndowProcess,
    EventsSeen,
    EventsStored,
    GatewayOrder,
    Launch,
    Pause,
    Resume,
    Terminate,
)
from pie_engine.store.contexts import SavedContexts

log = logging.getLogger(__name__)

DESCRIBE_PID = "describe-"
DESCRIBE_WALL_S = 30.0
"""Reading a signature imports the program, which may wait for something."""
LOOK_AT_TRACES_S = 0.05
COMPILE_CHECK_S = 0.02
COMPILE_TOLD_S = 1.0
"""Who waits longer for his component to be compiled is told."""


class Host:
    """All programs of one host process. Not thread-safe."""

    def __init__(
        self,
        config: EngineConfig,
        guests: Guests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cores = Cores([section.label for section in config.models])
        self.saved = SavedContexts(config.paths.saved_contexts)
        self.processes: dict[str, Process] = {}
        self.running = ""
        """The process that has or had the last turn."""
        self.guests = guests
        self._config = config.host
        self._is_traced = bool(config.telemetry.otlp_endpoint)
        self._clock = clock
        self._scheduler = Scheduler(clock, self._resume)
        self._wall = WallLimits(self._scheduler.timers, clock, self._end)
        self._programs = ProgramCache()
        self._ids = itertools.count(1)
        self._outbox = Outbox()
        self._settlements = Settlements(self._outbox.answer)
        self._results = CoreResults(self.processes, self._settlements, self._end)
        self._watched: dict[str, Process] = {}
        """Those with a tap."""
        self._traces_due = 0.0
        """When is looked next whether they have something to send."""
        self._activities = Activities(clock)
        self._num_gateways = 0
        """How often one was gained or lost."""
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Launch: self._launch,
            ChildRefused: self._child_refused,
            Describe: self._describe,
            Deliver: self._deliver,
            Terminate: self._terminate,
            Pause: self._pause,
            Resume: self._go_on,
            EndowProcess: self._endow,
            BidForProcess: self._bid_for,
            EventsStored: self._events_stored,
            EventsSeen: self._events_seen,
        }

    # What comes in.

    def receive_order(self, order: GatewayOrder) -> None:
        try:
            self._handlers[type(order)](order)
        except Exception as error:  # an order that cannot be carried out must not take the other programs along
            if not isinstance(error, PieError):
                log.exception("order %.200r", order)
            self._refuse(order, info_of(error))

    def receive_results(self, boot_id: str, results: Iterable[CoreResult]) -> None:
        core = self.cores.get(boot_id)
        if core is not None:
            self._results.receive(core, results)

    def add_core(self, boot_id: str, model: HostModel) -> None:
        self.cores.add(boot_id, model)

    def set_adapters(self, boot_id: str, adapters: dict[str, HostAdapter]) -> None:
        """What the core has loaded by now."""
        core = self.cores.get(boot_id)
        if core is not None:
            core.adapters = adapters

    def lose_core(self, boot_id: str) -> None:
        """It died: whatever has a context there ends."""
        core = self.cores.remove(boot_id)
        if core is not None:
            for process in list(self.processes.values()):
                if process.uses(core):
                    self._end(process, core_lost(core.model.name).info)
            self._settlements.lost(core)

    def gain_gateway(self) -> list[HostReport]:
        """What a new gateway has to hear first."""
        self._num_gateways += 1
        paused = [pid for pid, process in self.processes.items() if process.pause.is_on]
        wishes = [wish for process in self.processes.values() for wish in process.family.wishes]
        return [*self._outbox.start_anew(paused), *wishes]

    def lose_gateway(self) -> None:
        """Programs go on for a while."""
        self._num_gateways += 1
        lost = self._num_gateways
        self._scheduler.timers.after(self._config.gateway_grace_s, lambda: self._give_up_without_gateway(lost))

    def _give_up_without_gateway(self, lost: int) -> None:
        """Unless there has been another one since."""
        if self._num_gateways == lost:
            grace_s = self._config.gateway_grace_s
            self.end_all(Lost.of("lost", f"there was no gateway for {grace_s:g} s").info)

    def end_all(self, error: ErrorInfo) -> None:
        for process in list(self.processes.values()):
            self._end(process, error)

    # What goes out.

    def take_reports(self) -> list[HostReport]:
        """For the gateway."""
        if self._watched and self._clock() >= self._traces_due:
            self._flush_traces()
        return self._outbox.take()

    def _flush_traces(self) -> None:
        """Those that have waited for long enough."""
        self._traces_due = self._clock() + LOOK_AT_TRACES_S
        for process in self._watched.values():
            for trace in process.events.traces:
                if trace.flush_old():
                    self.has_output(process)

    def take_activities(self) -> dict[str, Activity]:
        """For the gateway, now and then: what processes do, where that has changed."""
        return self._activities.news(self.processes)

    def take_messages(self) -> dict[str, list[CoreMessage]]:
        """For each core that there is something for, by boot id."""
        outgoing = {core.boot_id: core.take_outgoing() for core in self.cores}
        return {boot_id: messages for boot_id, messages in outgoing.items() if messages}

    # Time.

    @property
    def has_ready(self) -> bool:
        return self._scheduler.has_ready

    @property
    def seconds_left(self) -> float | None:
        """Until something is to be done without anything coming in; None: never."""
        return self._scheduler.seconds_left

    def run(self, seconds: float) -> None:
        """What is due, then guests that are ready, in turn, for about so long."""
        self.guests.bury()
        self._scheduler.run(seconds)

    def tidy_up(self) -> None:
        """Now and then."""
        if not self.processes:
            self.guests.tidy_up()

    def close(self) -> None:
        for process in list(self.processes.values()):
            self._end(process, cancelled())
        self.guests.close()

    def look_outside(self, socket: int) -> None:
        """A program outside of the sandbox may have said something there, or may take more."""
        process = self.guests.look_outside(socket)
        if process is not None:
            self.make_ready(process)

    # Services for processes.

    def next_id(self) -> int:
        return next(self._ids)

    @property
    def runtime_build(self) -> str:
        return self.guests.runtime_build

    def make_ready(self, process: Process) -> None:
        self._scheduler.make_ready(process)

    def wake_after(self, process: Process, timeout_us: int) -> None:
        self._scheduler.wake_after(process, timeout_us)

    def has_output(self, process: Process) -> None:
        self._outbox.changed(process.events)

    # Services for families.

    def ask_for_child(self, wish: LaunchChild) -> None:
        self._outbox.answer(wish)

    def ask_to_end(self, process: Process) -> None:
        self._terminate(Terminate(process.pid))

    def end(self, process: Process, error: ErrorInfo) -> None:
        self._end(process, error)

    # Running.

    def _start(self, process: Process) -> Guest | None:
        """Its guest, with the call set up; None while its component is being compiled."""
        job, program = process.job, process.program
        guest = self.guests.find(process)
        if guest is None:
            self._await_component(process)
            return None
        if program.is_component and not job.native:
            self._wall.begin(process)
        process.guest = guest
        guest.limit_memory(process.limits.memory_mb * MIB)
        guest.begin(process, job.function, (_text_for(process), *job.arguments))
        return guest

    def _await_component(self, process: Process) -> None:
        self._scheduler.timers.after(COMPILE_CHECK_S, lambda: self.make_ready(process))
        if not process.awaits_component:
            process.awaits_component = True
            self._scheduler.timers.after(COMPILE_TOLD_S, lambda: self._tell_compiling(process))

    def _tell_compiling(self, process: Process) -> None:
        if process.guest is None and not process.has_ended:
            process.tell("info", f"compiling the component of {process.program.name}, once")

    def _resume(self, process: Process) -> None:
        """Let a process run until it waits, ends or has had its turn."""
        self.running = process.pid
        try:
            self._run_guest(process)
        except Exception as error:
            if not isinstance(error, PieError):
                log.exception("process %s", process.pid)
            self._end(process, info_of(error))

    def _run_guest(self, process: Process) -> None:
        if process.doom is not None:
            raise process.doom
        guest = process.guest or self._start(process)
        if guest is None:
            return
        if process.is_waiting:
            guest.answer(process.end_wait())
        status = guest.resume()
        process.account_cpu(guest.used_cpu_ns)
        if status is Status.ENDED:
            self._end(process, ending_of(process, guest.take_outcome()))
        elif process.doom is not None:
            raise process.doom
        elif status is Status.PREEMPTED:
            self.make_ready(process)

    def _end(self, process: Process, ending: Ending) -> None:
        """Exactly once for each process, however often it is tried."""
        if process.has_ended:
            return
        del self.processes[process.pid]
        # Before it: what they have left of its credits is its own again.
        process.family.end_children()
        if process.guest is not None:
            self.guests.leave(process.guest)
        if process.tap is not None:
            self._watched.pop(process.pid, None)
            process.tap.ended(ending)
        process.close()
        process.job.conclude(process, ending)
        process.family.tell_end(ending)

    # Orders.

    def _launch(self, order: Launch) -> None:
        program = self._programs.get(order.user, order.digest, order.bundle)
        if self._outbox.knows(order.pid):
            return
        bond = bond_of(self.processes, order) if order.parent else None
        process = self._add(Job.of(order, program, self._conclude_run, self.processes.get(order.parent), bond))
        if self._is_traced:
            process.generations = GenerationLog(order.pid)
        self._open_log(process.events, order.bundle)
        process.watch()
        if process.tap is not None:
            self._watched[process.pid] = process
        for cut in process.limits.cuts():
            process.tell("warning", cut)
        if process.job.parent is not None:
            process.job.parent.family.born(process)

    def _child_refused(self, order: ChildRefused) -> None:
        bond = awaited(self.processes, order.parent, order.request)
        if bond is not None:
            bond.refuse(order.error.raised())

    def _refuse(self, order: GatewayOrder, error: ErrorInfo) -> None:
        """Whoever waits for an answer gets one."""
        if isinstance(order, Describe):
            self._outbox.answer(Described(order.request, error=error))
        elif isinstance(order, Launch) and not self._outbox.knows(order.pid):
            events = EventLog(order.pid, 0)
            self._open_log(events, order.bundle)
            events.end("error", json_text(error))
            self._child_refused(ChildRefused(order.parent, order.request, error))

    def _open_log(self, events: EventLog, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._outbox.open(events)
        events.add("started", json_text({"program": manifest.name, "version": manifest.version}))

    def _conclude_run(self, process: Process, ending: Ending) -> None:
        if process.generations is not None:
            self._outbox.answer(process.generations.told())
        if isinstance(ending, ErrorInfo):
            process.events.end("error", json_text(ending), process.usage)
        else:
            process.events.end("return", ending, process.usage)
        self.has_output(process)
        self._settlements.begin(process.pid, process.wallet, self.cores)

    def _describe(self, order: Describe) -> None:
        """As a process that nobody sees."""

        def conclude(_process: Process, ending: Ending) -> None:
            self._outbox.answer(_described(order.request, ending))

        program = self._programs.get("", order.digest, order.bundle)
        pid = f"{DESCRIBE_PID}{order.request}"
        self._add(Job(pid, "", program, "describe", (), conclude, wall_s=DESCRIBE_WALL_S, compiles=order.compiles))

    def _add(self, job: Job) -> Process:
        process = self.processes[job.pid] = Process(job, self, self._config, self._clock)
        if not job.program.is_component and not job.native:
            self._wall.begin(process)
        self.make_ready(process)
        return process

    def _deliver(self, order: Deliver) -> None:
        process = self.processes.get(order.pid)
        if process is not None:
            process.mailbox.deliver(order.seq, order.value)

    def _terminate(self, order: Terminate) -> None:
        process = self.processes.get(order.pid)
        if process is None or process.is_terminated:
            return
        if process.guest is None:
            self._end(process, cancelled())
            return
        process.terminate()
        self._end_pause(process)
        self._scheduler.timers.after(self._config.cancel_grace_s, lambda: self._end(process, cancelled()))

    def _pause(self, order: Pause) -> None:
        process = self.processes.get(order.pid)
        if process is None or process.is_terminated or process.pause.is_on:
            return
        process.pause.begin()
        process.wallet.stand_still(True, self.cores)
        process.tell("info", "paused")

    def _go_on(self, order: Resume) -> None:
        process = self.processes.get(order.pid)
        if process is None or not process.pause.is_on:
            return
        process.tell("info", "resumed")
        self._end_pause(process)

    def _end_pause(self, process: Process) -> None:
        if process.pause.is_on:
            process.wallet.stand_still(False, self.cores)
            process.pause.end()

    def _endow(self, order: EndowProcess) -> None:
        process = self.processes.get(order.pid)
        if process is not None:
            process.wallet.endow(order.endowment, self.cores)

    def _bid_for(self, order: BidForProcess) -> None:
        process = self.processes.get(order.pid)
        if process is not None:
            process.wallet.set_bid(order.bid, self.cores)

    def _events_stored(self, order: EventsStored) -> None:
        self._outbox.stored(order.pid, order.seq)

    def _events_seen(self, order: EventsSeen) -> None:
        process = self.processes.get(order.pid)
        if process is not None:
            process.seen(order.seq)


def _text_for(process: Process) -> str:
    """The bundle, with what the guest is to do beside running it."""
    job = process.job
    if job.compiles:
        return job.program.compiled_text()
    return job.program.watched_text(with_code=not process.is_recorded) if job.trace else job.program.text()


def _described(request: int, ending: Ending) -> Described:
    if isinstance(ending, ErrorInfo):
        return Described(request, error=ending)
    try:
        return Described(request, signature=msgspec.json.decode(ending, type=Signature))
    except msgspec.DecodeError as error:
        return Described(request, error=info_of(error))
