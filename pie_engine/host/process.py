"""One inferlet: what it may do, what it holds, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pie_engine.config import MIB, HostSection
from pie_engine.errors import ErrorInfo, InvalidInput, LimitExceeded, NotFound, PieError
from pie_engine.host.contexts import Context
from pie_engine.host.cores import Cores, CoreView
from pie_engine.host.events import EventLog, json_text
from pie_engine.host.futures import TERMINATION, FutureTable
from pie_engine.host.mailbox import Drain, Mailbox
from pie_engine.host.runner import Guest
from pie_engine.protocol.program import Limits
from pie_engine.protocol.to_gateway import EventKind

if TYPE_CHECKING:
    from pie_engine.host.programs import Program


@dataclass(frozen=True, slots=True)
class GrantedLimits:
    """What a process may use; the engine's own limits bound what a manifest asks for. `wall_s` 0: no limit."""

    memory_mb: int
    cpu_s: float
    wall_s: float
    output_mb: float

    @classmethod
    def of(cls, asked: Limits, engine: HostSection) -> GrantedLimits:
        walls = [wall for wall in (asked.wall_s, engine.wall_s) if wall]
        return cls(
            memory_mb=min(asked.memory_mb or engine.memory_mb, engine.memory_mb),
            cpu_s=min(asked.cpu_s or engine.cpu_s, engine.cpu_s),
            wall_s=min(walls, default=0.0),
            output_mb=min(asked.output_mb or engine.output_mb, engine.output_mb),
        )


class HostServices(Protocol):
    """What a process needs of its host."""

    cores: Cores

    def next_id(self) -> int:
        """For operations, contexts and futures; never the same twice in this host."""

    def make_ready(self, process: Process) -> None:
        """Its wait is over."""

    def wake_after(self, process: Process, timeout_us: int) -> None:
        """Unless it is woken before."""

    def has_output(self, process: Process) -> None:
        """Its events are to go out at the end of this turn."""


Ending = str | ErrorInfo
"""The value of `main` as JSON, or the error."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is for: one call into a program."""

    pid: str
    user: str
    program: Program
    function: str
    """`run` or `describe`."""
    arguments: tuple[str, ...]
    """Of the function, after the bundle."""
    conclude: Callable[[Process, Ending], None]
    """Called once, when everything has been given back."""


class Process:
    """From launch to its terminal event. It is the owner of its guest and what the WIT interfaces act upon."""

    def __init__(self, job: Job, services: HostServices, limits: HostSection) -> None:
        self.job = job
        self.pid = job.pid
        self.program = job.program
        self.limits = GrantedLimits.of(job.program.manifest.limits, limits)
        self.guest: Guest | None = None
        self.num_calls = 0
        self.is_waiting = False
        self.is_queued = False
        self.has_ended = False
        self.wake_at: float | None = None
        """When its wait times out; None: never, or it does not wait."""
        self.alarm_at: float | None = None
        """When its timer goes off next, which may be earlier than `wake_at`, but is never later."""
        self.is_terminated = False
        self.doom: PieError | None = None
        """How it will end, whatever its guest does from now on."""
        self.events = EventLog(job.pid, int(self.limits.output_mb * MIB))
        self.mailbox = Mailbox(self.notify)
        self.futures = FutureTable()
        self.contexts: dict[int, Context] = {}
        self._services = services
        self._seen_seq = 0
        self._cpu_ns = 0
        self._num_calls_seen = 0

    def next_id(self) -> int:
        return self._services.next_id()

    # Waiting.

    def begin_wait(self, timeout_us: int | None) -> list[int] | None:
        """`futures.wait-any`: what is ready, or None: the guest is to be suspended."""
        if self.futures.has_ready or timeout_us == 0:
            return self.futures.take_ready()
        if timeout_us is None and not self.futures.has_pending:
            raise InvalidInput("nothing is under way that could wake the program")
        self.is_waiting = True
        if timeout_us is not None:
            self._services.wake_after(self, timeout_us)
        return None

    def end_wait(self) -> list[int]:
        self.is_waiting, self.wake_at = False, None
        return self.futures.take_ready()

    def notify(self, handle: int) -> None:
        """A future has become ready."""
        if self.futures.notify(handle) and self.is_waiting:
            self._services.make_ready(self)

    def terminate(self) -> None:
        """Ask it to end."""
        self.is_terminated = True
        self.notify(TERMINATION)

    # Contexts.

    def core(self, model: str) -> CoreView:
        return self._services.cores.of_model(model)

    @property
    def model_names(self) -> list[str]:
        return self._services.cores.names

    def context(self, ctx: int) -> Context:
        context = self.contexts.get(ctx)
        if context is None:
            raise NotFound(f"context {ctx} does not exist", hint="it was released, or never created")
        return context

    def create_context(self, model: str, seed: int | None) -> Context:
        core = self.core(model)
        core.open(self.pid, self.program.name, self.job.user)
        return self.adopt(Context.create(self, core, seed))

    def adopt(self, context: Context) -> Context:
        self.contexts[context.ctx] = context
        return context

    def release_context(self, ctx: int) -> None:
        context = self.contexts.pop(ctx, None)
        if context is not None:
            context.release()

    def uses(self, core: CoreView) -> bool:
        return any(context.core is core for context in self.contexts.values())

    # Output.

    def output(self, kind: EventKind, data: str) -> None:
        """JSON that counts as output; over the limit the program ends."""
        self._output(lambda: self.events.output(kind, data))

    def write(self, kind: EventKind, text: str) -> None:
        """Text of a standard stream."""
        self._output(lambda: self.events.write(kind, text))

    def send_piped(self, text: str) -> None:
        """A chunk's text, on its way past the program, which therefore cannot be told of a failure."""
        try:
            self.output("message", json_text(text))
        except LimitExceeded:
            self._services.make_ready(self)

    def _output(self, append: Callable[[], None]) -> None:
        if self.doom is not None:
            raise self.doom
        try:
            append()
        except LimitExceeded as error:
            self.doom = error
            raise
        self._services.has_output(self)

    # What a client has seen.

    def add_drain(self) -> int:
        drain = Drain(self.next_id(), self.events.close_text())
        self.futures.add(drain)
        self._settle_drains()
        return drain.handle

    def seen(self, seq: int) -> None:
        self._seen_seq = max(self._seen_seq, seq)
        self._settle_drains()

    def _settle_drains(self) -> None:
        for future in self.futures:
            if isinstance(future, Drain) and not future.is_done and future.seq <= self._seen_seq:
                future.is_done = True
                self.notify(future.handle)

    # CPU time.

    def account_cpu(self, used_ns: int) -> None:
        """After each run of its guest; too much without a call to the host dooms it."""
        if self.num_calls != self._num_calls_seen:
            self._num_calls_seen, self._cpu_ns = self.num_calls, 0
        self._cpu_ns += used_ns
        if self._cpu_ns > self.limits.cpu_s * 1e9 and self.doom is None:
            self.doom = LimitExceeded.of(
                "cpu_limit",
                f"the program computed for {self.limits.cpu_s:g} s without a call to the engine",
                hint="await something now and then, or raise `cpu_s` under [limits] in pie.toml",
            )

    # The end.

    def close(self) -> None:
        """Give back what the cores hold. The guest is freed by the host."""
        self.has_ended = True
        self.guest = None
        for context in self.contexts.values():
            for operation in context.operations.values():
                context.core.operations.pop(operation.handle, None)
        self.contexts.clear()
        for core in self._services.cores:
            core.close(self.pid)
