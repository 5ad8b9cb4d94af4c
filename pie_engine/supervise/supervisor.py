"""The daemon's one loop: start children, tell them who is there, start again what dies, end in order.

It polls the hub, the children's output and the signal pipe; nothing in it waits for anything else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import zmq

from pie_engine.config import EngineConfig
from pie_engine.errors import ErrorInfo, Internal, InvalidConfig
from pie_engine.ipc.child import DAEMON_BOOT, EXIT_BLOCKED, EXIT_START_FAILED
from pie_engine.ipc.link import Hub
from pie_engine.protocol.to_daemon import (
    DaemonMessage,
    NeedHost,
    Progress,
    Ready,
    Role,
    Shutdown,
    StartFailed,
    StopDaemon,
    Topology,
)
from pie_engine.supervise.backoff import WINDOW_S
from pie_engine.supervise.child import ChildProcess, exit_reason
from pie_engine.supervise.incidents import Incident, Incidents
from pie_engine.supervise.logs import RotatingLog
from pie_engine.supervise.seat import Seat

log = logging.getLogger(__name__)

Commands = Mapping[Role, Sequence[str]]
"""The command line of each role's process."""

EXTRA_GRACE_S = 1.0
"""On top of what a terminated inferlet may take: for hosts and cores to end, then for the gateway to say so."""
POLL_S = 1.0
EXIT_OK = 0
NUM_BLOCKED = 100
"""So many of the last hosts that gave up are told of; by then everybody has heard of those before."""


class Supervisor:
    """Runs the engine until it is told to stop."""

    def __init__(self, config: EngineConfig, commands: Commands) -> None:
        self._config = config
        self._paths = config.paths
        self._config_builtins: dict[str, object] = msgspec.to_builtins(config)
        self._commands = commands
        self._seats = [self._new_seat(role, name) for role, name in seats_of(config)]
        self._blocked: deque[str] = deque(maxlen=NUM_BLOCKED)
        self._incidents = Incidents(RotatingLog(self._paths.incidents))
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._paths.run / "daemon.sock"
        self._address = f"ipc://{self._socket}"
        self._hub: Hub[DaemonMessage] = Hub(self._context, self._address, DAEMON_BOOT, DaemonMessage)
        self._poller = zmq.Poller()
        self._poller.register(self._hub.socket, zmq.POLLIN)
        self._wakeup = _signal_pipe()
        self._poller.register(self._wakeup, zmq.POLLIN)
        self._changed = True
        self._num_stop_signals = 0
        self._kill_at: float | None = None
        """When whoever has not ended by itself is killed; None while the engine runs."""
        self._told_to_end: set[str] = set()

    def run(self) -> None:
        """Until stopped. Raises the gateway's error when there is no gateway and will be none."""
        self._on_signals()
        try:
            while not self._is_over():
                self._fill_due_seats()
                self._tell_topology()
                self._wait()
                self._heed_signals()
                self._read_messages()
                self._reap()
                self._end_in_order()
        finally:
            self._abandon()
        if self._gateway.failed:
            raise self._gateway.failed.raised()

    # State.

    def _new_seat(self, role: Role, name: str, user: str = "") -> Seat:
        return Seat(role, name, self._commands[role], RotatingLog(self._paths.logs / f"{name}.log"), user)

    @property
    def _gateway(self) -> Seat:
        return self._seats[0]

    @property
    def _is_stopping(self) -> bool:
        return self._kill_at is not None

    def _is_over(self) -> bool:
        return self._is_stopping and all(seat.child is None for seat in self._seats)

    def _alive(self, *roles: Role) -> list[Seat]:
        return [seat for seat in self._seats if seat.child and seat.role in roles]

    # Starting.

    def _fill_due_seats(self) -> None:
        now = time.monotonic()
        for seat in self._seats:
            if seat.start_at is not None and seat.start_at <= now and not self._is_stopping:
                self._fill(seat)

    def _fill(self, seat: Seat) -> None:
        child = ChildProcess(
            seat.command, seat.role, seat.name, self._paths.run, self._address, self._config_builtins, seat.user
        )
        log.info("%s started as process %d, boot %s", seat.name, child.os_pid, child.boot_id)
        self._poller.register(child.output, zmq.POLLIN)
        seat.fill(child)
        self._changed = True

    # Waiting.

    def _wait(self) -> None:
        for source, _ in self._poller.poll(round(self._timeout_s() * 1000)):
            if source == self._wakeup:
                self._drain_wakeup()
        for seat in self._seats:
            if seat.child and not seat.child.drain(seat.log):
                self._stop_listening(seat.child)

    def _timeout_s(self) -> float:
        due = [seat.start_at for seat in self._seats if seat.start_at is not None and not self._is_stopping]
        if self._kill_at is not None:
            due.append(self._kill_at)
        return max(0.0, min([POLL_S, *(moment - time.monotonic() for moment in due)]))

    def _drain_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeup, 4096):
                pass

    def _stop_listening(self, child: ChildProcess) -> None:
        # At the end of its output a descriptor is always readable and would turn the loop into a busy one.
        with contextlib.suppress(KeyError):
            self._poller.unregister(child.output)

    # Messages.

    def _read_messages(self) -> None:
        for boot_id, messages in self._hub.receive():
            seat = self._seat_of(boot_id)
            if seat is None:
                continue
            # Its link is there now; whatever was sent before went nowhere.
            self._changed = True
            for message in messages:
                self._take(seat, message)

    def _seat_of(self, boot_id: str) -> Seat | None:
        return next((seat for seat in self._seats if seat.child and seat.child.boot_id == boot_id), None)

    def _take(self, seat: Seat, message: DaemonMessage) -> None:
        match message:
            case Ready(detail):
                log.info("%s is ready", seat.name)
                seat.show_ready(detail)
            case Progress():
                seat.show_progress(message)
            case StartFailed(error):
                seat.failed = error
            case NeedHost(user):
                self._call_host(user)
            case StopDaemon(drain):
                log.info("asked to stop%s", ", drained" if drain else "")
                self.stop()

    def _call_host(self, user: str) -> None:
        """A host for the standalone components of `user`, if there is none."""
        seat = next((seat for seat in self._seats if seat.user == user), None)
        if seat is None:
            seat = self._new_seat("host", component_host_name(user), user)
            self._seats.append(seat)
        seat.call()

    def _tell_topology(self) -> None:
        if not self._changed:
            return
        self._changed = False
        members = [seat.member() for seat in self._seats]
        topology = Topology(members, list(self._incidents.recent), list(self._blocked))
        for seat in self._seats:
            if seat.child:
                self._hub.send(seat.child.boot_id, [topology])

    # Deaths.

    def _reap(self) -> None:
        for seat in self._seats:
            if seat.child and seat.child.has_exited():
                self._bury(seat, seat.child)

    def _bury(self, seat: Seat, child: ChildProcess) -> None:
        child.drain(seat.log)
        self._stop_listening(child)
        if child.exit_status == EXIT_BLOCKED:
            self._blocked.append(child.boot_id)
        if child.exit_status == EXIT_START_FAILED:
            self._await_start_failure(seat)
        self._hub.forget(child.boot_id)
        self._settle_death(seat, child)
        child.bury()
        seat.vacate()
        self._changed = True

    def _await_start_failure(self, seat: Seat) -> None:
        """The reason travels by ZeroMQ and the death by the kernel: the death may be here first."""
        if seat.failed is None and self._hub.socket.poll(500):
            self._read_messages()
        if seat.failed is None:
            seat.failed = _died_at_start(seat)

    def _settle_death(self, seat: Seat, child: ChildProcess) -> None:
        reason = exit_reason(child.exit_status)
        if self._is_stopping and _went_along(child):
            log.info("%s (process %d): %s, since the daemon stops", seat.name, child.os_pid, reason)
            return
        action = self._next_step(seat)
        log.warning("%s (process %d): %s; %s", seat.name, child.os_pid, reason, action)
        self._incidents.add(
            Incident(
                time.time(),
                seat.role,
                seat.name,
                child.boot_id,
                child.os_pid,
                reason,
                action,
                child.last_lines,
                # Given up is no error of its own.
                seat.failed.code if seat.failed and child.exit_status == EXIT_START_FAILED else "",
            )
        )
        if self._gateway.failed:
            # Nobody could reach the engine any more, nor see why.
            self.stop()

    def _next_step(self, seat: Seat) -> str:
        """Decides what happens to the seat, and says it."""
        if seat.failed:
            # Whoever waited for it may have stopped the daemon because of that already.
            return f"cannot start: {seat.failed.message}"
        if self._is_stopping:
            return "the daemon was stopping"
        if seat.user and seat.child and seat.child.exit_status == EXIT_BLOCKED:
            # That is what such hosts are for, however often it happens.
            return "started again when it is needed"
        delay_s = seat.backoff.delay_after_death(time.monotonic())
        if delay_s is None:
            seat.failed = _gave_up(seat)
            return "given up"
        seat.start_at = time.monotonic() + delay_s
        return "started again" if delay_s == 0 else f"started again after {delay_s:g} s"

    # Ending.

    def stop(self) -> None:
        """Begin the orderly end; `run` returns when all children are gone."""
        if not self._is_stopping:
            self._kill_at = time.monotonic() + self._grace_s
            self._changed = True

    @property
    def _grace_s(self) -> float:
        return self._config.host.cancel_grace_s + 2 * EXTRA_GRACE_S

    def _end_in_order(self) -> None:
        """Hosts end their programs, then cores go, then the gateway has nothing left to hear of."""
        if self._kill_at is None:
            return
        self._tell_to_end(self._alive("gateway", "host"))
        if not self._alive("host"):
            self._tell_to_end(self._alive("core"))
        if time.monotonic() >= self._kill_at or self._num_stop_signals > 1:
            self._kill_rest()

    def _tell_to_end(self, seats: list[Seat]) -> None:
        for seat in seats:
            assert seat.child is not None
            if seat.child.boot_id not in self._told_to_end:
                self._told_to_end.add(seat.child.boot_id)
                self._hub.send(seat.child.boot_id, [Shutdown(self._grace_s - EXTRA_GRACE_S)])

    def _kill_rest(self) -> None:
        """In the same order; those behind get a moment more for their own end."""
        for seat in self._alive("host") or self._alive("core") or self._alive("gateway"):
            assert seat.child is not None
            seat.child.kill()
        self._kill_at = time.monotonic() + EXTRA_GRACE_S

    def _abandon(self) -> None:
        """Also on our own crash: no child outlives the loop that looks after it."""
        for seat in self._seats:
            if seat.child:
                seat.child.kill()
            seat.log.close()
        self._hub.close()
        self._context.term()
        self._socket.unlink(missing_ok=True)

    # Signals.

    def _on_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._count_stop)
        # Without a handler of ours the signal would not be written to the pipe.
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _count_stop(self, *_: object) -> None:
        self._num_stop_signals += 1

    def _heed_signals(self) -> None:
        """Before deaths are settled: a signal to the whole process group reaches the children, too."""
        if self._num_stop_signals:
            self.stop()


def seats_of(config: EngineConfig) -> list[tuple[Role, str]]:
    """Role and name of every child; the gateway first, since it shows how the others come up."""
    labels = [model.label for model in config.models]
    for label in labels:
        if labels.count(label) > 1:
            raise InvalidConfig(f"two models are called `{label}`", hint="give each of them its own `name`")
    cores: list[tuple[Role, str]] = [("core", label) for label in labels]
    hosts: list[tuple[Role, str]] = [("host", f"host-{number}") for number in range(config.host.num_hosts)]
    return [("gateway", "gateway"), *cores, *hosts]


def component_host_name(user: str) -> str:
    """Also of its log, so only what a file's name may hold."""
    return "components-" + re.sub(r"[^A-Za-z0-9._-]", "_", user)


def _signal_pipe() -> int:
    """The reading end of a pipe that every signal writes to."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _went_along(child: ChildProcess) -> bool:
    """Whether its death is part of the daemon's end: it has ended when told, or was ended from outside. One that has
    crashed on its own meanwhile is an incident all the same."""
    return child.was_killed or child.exit_status in (EXIT_OK, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


def _died_at_start(seat: Seat) -> ErrorInfo:
    lines = seat.child.last_lines if seat.child else []
    last = next((line for line in reversed(lines) if line.strip()), "it did not say why")
    return Internal(f"{seat.role} {seat.name} cannot start: {last}", hint=f"see logs/{seat.name}.log").info


def _gave_up(seat: Seat) -> ErrorInfo:
    lines = seat.child.last_lines if seat.child else []
    last = next((f": {line}" for line in reversed(lines) if line.strip()), "")
    return Internal(
        f"{seat.role} {seat.name} died {seat.backoff.num_deaths} times within {WINDOW_S:g} s{last}",
        hint=f"see logs/{seat.name}.log, then `pie stop` and start again",
    ).info
