"""The process table: every process that has not ended, where it runs, and how each of them ends once.

All state changes happen on the loop's thread between two awaits, and take effect for others when the turn is committed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from pie_engine.config import MIB, EngineConfig
from pie_engine.errors import Busy, Cancelled, ErrorInfo, InvalidInput, LimitExceeded, Lost, NotFound
from pie_engine.gateway.audience import Audience
from pie_engine.gateway.children import Children
from pie_engine.gateway.counts import Counts
from pie_engine.gateway.hosts import PYTHON, Host, HostPool, lane_of
from pie_engine.gateway.launches import checked_input, record_of, trace_kinds
from pie_engine.gateway.native import check_native
from pie_engine.gateway.orders import Orders
from pie_engine.gateway.problems import Conflict
from pie_engine.gateway.process import Process
from pie_engine.gateway.programs import Programs
from pie_engine.gateway.quotas import HOUR_S, Quotas
from pie_engine.gateway.receipts import Receipts
from pie_engine.gateway.secret_shelf import SecretShelf
from pie_engine.gateway.turn import Turn, nothing
from pie_engine.protocol.http import LaunchRequest
from pie_engine.protocol.program import Bundle, Manifest
from pie_engine.protocol.to_gateway import Event, Registered, Settled
from pie_engine.protocol.to_host import BidForProcess, ChildRefused, EndowProcess, Launch, Terminate
from pie_engine.store.records import ProcessRecord
from pie_engine.store.store import Store

if TYPE_CHECKING:
    from pie_engine.gateway.telemetry import Telemetry

log = logging.getLogger(__name__)


class ProcessTable:
    """Processes by pid, from launch until their terminal event is stored; after that they are the store's."""

    def __init__(
        self,
        store: Store,
        turn: Turn,
        hosts: HostPool,
        programs: Programs,
        secret_shelf: SecretShelf,
        config: EngineConfig,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._turn = turn
        self._hosts = hosts
        self._programs = programs
        self._secrets = secret_shelf
        self._config = config.gateway
        self._quotas = Quotas(config.scheduling, store.endowed_since(time.time() - HOUR_S))
        self.orders = Orders(store, turn, self._quotas, self.end)
        self.children = Children(self, programs, hosts, turn, int(config.gateway.max_body_mb * MIB))
        self._alive: dict[str, Process] = {}
        self._by_key: dict[tuple[str, str], Process] = {}
        self._queues: defaultdict[str, deque[Process]] = defaultdict(deque)
        """Processes without a host, of each lane, oldest first. Those that have ended meanwhile are skipped."""
        self._next_id = store.next_process_id()
        self.counts = Counts()
        self._receipts = Receipts(turn)
        self.audience = Audience(store, self._receipts, config.gateway.disconnect_grace_s, self.orders.abandon)
        self.telemetry: Telemetry | None = None
        """None: nobody collects traces."""
        self.refusal: Busy | None = None
        """Why nothing is launched any more: draining or stopping."""
        self._no_host: dict[str, Lost] = {}
        """Why no host will ever take what waits in a lane."""
        self.on_empty: Callable[[], None] = nothing
        """Called when the last process has ended."""

    # Looking.

    @property
    def alive(self) -> list[Process]:
        return list(self._alive.values())

    @property
    def is_empty(self) -> bool:
        return not self._alive

    def find(self, user: str, pid: str) -> Process:
        """Alive or ended. Raises `NotFound`."""
        process = self._alive.get(pid) or self._ended(pid)
        if process is None or process.record.user != user:
            raise NotFound(f"no process `{pid}`", hint="`pie ps --all` shows what there is")
        return process

    def living(self, pid: str) -> Process | None:
        """None: there is none, or its last event has come."""
        process = self._alive.get(pid)
        return None if process is None or process.has_terminal else process

    def descendants(self, process: Process) -> list[Process]:
        """Its children and theirs that live, the oldest first."""
        pids, found = {process.pid}, []
        for each in self._alive.values():  # children come after their parents
            if each.record.parent in pids and not each.has_terminal:
                pids.add(each.pid)
                found.append(each)
        return found

    def _ended(self, pid: str) -> Process | None:
        record = self._store.process(pid)
        return None if record is None else Process(record)

    # Launching.

    async def launch(self, user: str, request: LaunchRequest) -> Process:
        """Returns when the launch is committed. The same idempotency key again gives the same process."""
        digest, bundle, is_new = self._program_of(user, request)
        text = checked_input(request.input)
        wish = bundle.manifest.endowment if request.endowment is None else request.endowment
        endowment = self._quotas.endowment(user, wish)
        if request.native:
            check_native(request, bundle)
        known = self.launched_before(user, request.idempotency_key)
        if known is not None:
            return await self._same_launch(known, digest, text)
        self._check_room(user, bundle.manifest, endowment)
        record = record_of(self.new_id(), user, digest, bundle.manifest, request, endowment)
        return await self.enter(record, bundle, is_new=is_new)

    async def enter(
        self, record: ProcessRecord, bundle: Bundle, host: Host | None = None, *, is_new: bool = False
    ) -> Process:
        """A new process takes its place in the table and in `host`, or in any that has room. Returns when it is
        committed. `is_new`: its program is to be stored."""
        process = self._admit(record, bundle, host)

        def change(store: Store) -> None:
            if is_new:
                store.add_program(record.digest, bundle)
            store.add_process(process.record)

        process.admission = self._turn.write(change, lambda: self._admitted(process, bundle))
        try:
            await asyncio.shield(process.admission)
        except Exception:
            self._drop(process)
            raise
        return process

    def new_id(self) -> int:
        """Of a process."""
        self._next_id += 1
        return self._next_id - 1

    def _program_of(self, user: str, request: LaunchRequest) -> tuple[str, Bundle, bool]:
        """Digest, content, and whether the store must be given it."""
        if (request.program is None) == (request.bundle is None):
            raise InvalidInput("give either `program` or `bundle`")
        if request.bundle is not None:
            digest, is_new = self._programs.admit(request.bundle)
            return digest, request.bundle, is_new
        digest = self._programs.resolve(user, request.program or "")
        return digest, self._programs.bundle(digest), False

    def launched_before(self, user: str, key: str | None) -> Process | None:
        if key is None:
            return None
        known = self._by_key.get((user, key))
        if known is not None:
            return known
        record = self._store.process_with_key(user, key)
        return None if record is None else Process(record)

    async def _same_launch(self, known: Process, digest: str, text: str) -> Process:
        if known.record.digest != digest or known.record.input != text:
            raise Conflict(f"the idempotency key `{known.record.idempotency_key}` was used for another launch")
        if known.admission is not None:
            await asyncio.shield(known.admission)
        return known

    def _check_room(self, user: str, manifest: Manifest, endowment: int) -> None:
        # A host for components is tried again whenever somebody needs it.
        refusal = self.refusal or self._no_host.get(PYTHON)
        if refusal is not None:
            raise refusal
        self.check_room(user, manifest, endowment)

    def check_room(self, user: str, manifest: Manifest, endowment: int) -> None:
        """For one process more, which brings so many new micro-credits. Raises `LimitExceeded`, and `NotFound` for a
        secret."""
        self._secrets.values(user, manifest.secrets, manifest.name)
        limit = self._config.max_processes
        if len(self._alive) >= limit:
            raise LimitExceeded.of(
                "queue_limit",
                f"{len(self._alive)} processes are running or queued, and {limit} is the most",
                hint="try again when some have ended, or raise `gateway.max_processes`",
            )
        self._quotas.check_room(user, endowment, self._alive.values())

    def _admit(self, record: ProcessRecord, bundle: Bundle, host: Host | None) -> Process:
        lane = lane_of(bundle.manifest, record.user)
        if host is None and not self._queues[lane]:
            host = self._hosts.pick(lane)
        if host is not None:
            record = msgspec.structs.replace(record, host_boot=host.boot_id, host=host.name)
        self._quotas.give(record.user, record.endowment)
        process = Process(record, lane=lane)
        parent = self._alive.get(record.parent or "")
        process.is_paused = parent is not None and parent.is_paused
        self._enter(process)
        if host is not None:
            host.pids.add(process.pid)
        return process

    def _admitted(self, process: Process, bundle: Bundle) -> None:
        """The launch is committed."""
        self.counts.launched()
        self._programs.remember(process.record.digest, bundle)
        if process.host_boot is None:
            self._queues[process.lane].append(process)
            self._pump(process.lane)
        else:
            self._dispatch(process)
        self.audience.watch(process)

    def _enter(self, process: Process) -> None:
        self._alive[process.pid] = process
        if process.record.idempotency_key is not None:
            self._by_key[process.record.user, process.record.idempotency_key] = process

    def _drop(self, process: Process) -> None:
        """Out of the table; its place is free."""
        self._alive.pop(process.pid, None)
        if process.record.idempotency_key is not None:
            self._by_key.pop((process.record.user, process.record.idempotency_key), None)
        self._hosts.release(process.host_boot, process.pid)

    def _dispatch(self, process: Process) -> None:
        """Tell its host. All of this is committed by now; saying it twice does no harm."""
        if process.has_terminal or process.host_boot is None:
            return
        record = process.record
        try:
            bundle = self._programs.bundle(record.digest)
            # Read now, not at the launch: a value that was renewed while the process was queued is the better one.
            given = self._secrets.values(record.user, bundle.manifest.secrets, record.program)
        except NotFound as error:
            self.end(process, error.info)
            return
        host = self._hosts.get(process.host_boot)
        if host is None:
            return  # it has died, and its processes are being ended
        process.is_dispatched = True
        bundle = host.parcel(record.digest, bundle)
        trace = trace_kinds(record.trace)
        launch = Launch(
            record.pid,
            record.user,
            record.digest,
            bundle,
            record.input,
            given,
            trace,
            record.native,
            process.endowment,
            self._quotas.priority(record.user),
            process.bid,
            record.parent or "",
            record.request,
            record.inherits,
        )
        self._turn.say(process.host_boot, launch)
        self.orders.say_again(process)

    # Queue.

    def enqueue(self, process: Process) -> None:
        """One that was queued when the gateway died."""
        self._enter(process)
        self._queues[process.lane].append(process)

    def _pump(self, lane: str) -> None:
        """Give waiting processes to hosts with room."""
        queue = self._queues[lane]
        while queue:
            if queue[0].has_terminal:
                queue.popleft()
                continue
            host = self._hosts.pick(lane)
            if host is None:
                return
            self._assign(queue.popleft(), host)

    def call_hosts(self) -> None:
        """For whoever waits while nobody comes."""
        for lane in list(self._queues):
            self._pump(lane)

    def _assign(self, process: Process, host: Host) -> None:
        process.host_boot, process.host = host.boot_id, host.name
        host.pids.add(process.pid)
        self._turn.insist(
            lambda store: store.assign(process.id, host.boot_id, host.name), lambda: self._dispatch(process)
        )

    # Events.

    def take_event(self, host_boot: str, event: Event) -> None:
        """One event from a host. What cannot be used is confirmed, so that the host forgets it."""
        process = self._alive.get(event.pid)
        if process is None or process.host_boot != host_boot or process.has_terminal:
            self._receipts.stored(host_boot, event.pid, event.seq)
        elif event.seq <= process.accepted_seq:
            # Sent again after a restart of this gateway; what is not stored yet is confirmed when it is.
            self._receipts.stored(host_boot, event.pid, min(event.seq, process.stored_seq))
        else:
            if event.seq != process.accepted_seq + 1:
                log.error("process %s: event %d follows event %d", event.pid, event.seq, process.accepted_seq)
            self._turn.append(process, event)

    def stored(self, events: list[tuple[Process, Event]]) -> None:
        """These are committed: show them, and tell their hosts how far each process has come."""
        for process, event in events:
            process.show(event)
            if event.kind == "started":
                self.counts.started(event.time - process.record.created)
                if self.telemetry is not None:
                    self.telemetry.started(process, event.time)
        for process in {process.id: process for process, _ in events}.values():
            if process.host_boot is not None and process.host_boot in self._hosts:
                self._receipts.stored(process.host_boot, process.pid, process.stored_seq)
        for process, event in events:
            if event.is_terminal:
                self._ended_now(process)

    def _ended_now(self, process: Process) -> None:
        self.counts.ended(process.outcome)
        if self.telemetry is not None:
            self.telemetry.ended(process)
        self.audience.stop_watch(process)
        if process.settled is not None:
            self._settle(process.settled)
        self._drop(process)
        self._pump(process.lane)
        if not self._alive:
            self.on_empty()

    def settle(self, settled: Settled) -> None:
        """What a process has paid in the end. It may come before its last event is stored."""
        process = self._alive.get(settled.pid)
        if process is None:
            self._settle(settled)
        else:
            process.settled = settled

    def _settle(self, settled: Settled) -> None:
        self._turn.insist(lambda store: store.settle(settled.pid, settled.spent, settled.endowment))

    def end(self, process: Process, info: ErrorInfo) -> None:
        """The terminal event that only the gateway can write. Nothing if there is one."""
        if process.has_terminal:
            return
        self._turn.append(process, process.error_event(info))
        record = process.record
        if record.parent is not None and process.host_boot is not None and not process.is_dispatched:
            self._turn.say(process.host_boot, ChildRefused(record.parent, record.request, info))

    # Hosts.

    def host_registered(self, host: Host, registered: Registered) -> None:
        """A host says what it runs; the rest of what was given to it is settled here."""
        reported, paused = set(registered.pids), set(registered.paused)
        for process in self.alive:
            if process.host_boot == host.boot_id and not process.has_terminal:
                host.pids.add(process.pid)
                if process.pid in reported:
                    process.is_paused = process.pid in paused
                    self._go_on(process)
                else:
                    self._resettle(process)
        for pid in reported - host.pids:
            # Ended in our books: nobody is interested in it any more.
            self._turn.say(host.boot_id, Terminate(pid))
        self._pump(host.lane)

    def _go_on(self, process: Process) -> None:
        """It ran on while there was no gateway. What we told it may have got lost with the old one."""
        assert process.host_boot is not None
        process.is_dispatched = True
        self._turn.say(process.host_boot, EndowProcess(process.pid, process.endowment))
        self._turn.say(process.host_boot, BidForProcess(process.pid, process.bid))
        self.orders.say_again(process)

    def _resettle(self, process: Process) -> None:
        """Its host is alive and does not know it: it was never told, or has forgotten it against the rules."""
        if process.accepted_seq == 0:
            self._dispatch(process)
        else:
            self.end(process, lost("its host no longer knows it"))

    def host_died(self, boot_id: str, info: ErrorInfo) -> None:
        self._hosts.remove(boot_id)
        for process in self.alive:
            if process.host_boot == boot_id:
                self.end(process, info)
        self.call_hosts()

    def hosts_failed(self, errors: dict[str, Lost]) -> None:
        """All hosts of these lanes are down for good, for this reason: nobody shall wait for them."""
        self._no_host = errors
        for lane, error in errors.items():
            for process in self._queues[lane]:
                self.end(process, error.info)

    # After a restart of the gateway.

    def restore(self, extra_grace_s: float) -> None:
        """What the store says is alive: queued ones wait again, the others for their hosts."""
        for record in self._store.alive():
            process = Process(record, self._store.num_messages(record.id), self._lane_of(record))
            if record.host_boot is not None:
                self._enter(process)
            elif record.is_terminating:
                self._enter(process)
                self.end(process, Cancelled("terminated before it was started").info)
            else:
                self.enqueue(process)
            self.audience.watch(process, extra_grace_s)

    def _lane_of(self, record: ProcessRecord) -> str:
        """Of one that waits; those that have a host do not queue any more."""
        try:
            return PYTHON if record.host_boot else lane_of(self._programs.bundle(record.digest).manifest, record.user)
        except NotFound:
            return PYTHON  # it ends with that when its turn comes

    def end_all(self, info: ErrorInfo) -> None:
        for process in self.alive:
            self.end(process, info)

    def end_orphans(self, alive_boots: set[str], info: ErrorInfo) -> None:
        """Those whose host is not among the living."""
        for process in self.alive:
            if process.host_boot is not None and process.host_boot not in alive_boots:
                self.end(process, info)


def daemon_stopped() -> ErrorInfo:
    return Lost.of("daemon_stopped", "the daemon was stopped").info


def lost(message: str) -> ErrorInfo:
    return Lost.of("lost", f"the process was lost: {message}").info
