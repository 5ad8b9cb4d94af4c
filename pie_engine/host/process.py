"""One inferlet: what it may do, what it holds, and how it ends."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from pie_engine.config import MIB, HostSection
from pie_engine.errors import ErrorInfo, InvalidInput, LimitExceeded, NotFound, PieError
from pie_engine.host.contexts import Context
from pie_engine.host.cores import Cores, CoreView
from pie_engine.host.events import EventLog, TooMuchOutput, json_text
from pie_engine.host.family import Child, Family, FamilyServices
from pie_engine.host.futures import TERMINATION, FutureTable
from pie_engine.host.generations import GenerationLog
from pie_engine.host.limits import GrantedLimits
from pie_engine.host.mailbox import Drain, Mailbox
from pie_engine.host.market import MarketLook, Wallet
from pie_engine.host.pause import Pause
from pie_engine.host.redaction import Redaction
from pie_engine.host.runner import Guest
from pie_engine.host.surroundings import Surroundings
from pie_engine.host.tap import Places, Tap, Waited
from pie_engine.host.taps import make_tap
from pie_engine.protocol.plan import NO_USAGE, Usage
from pie_engine.protocol.to_gateway import EventKind
from pie_engine.protocol.to_host import NO_SECRETS, Launch, Secrets, TraceKind, Waits
from pie_engine.store.contexts import SavedContexts

if TYPE_CHECKING:
    from pie_engine.host.matchers import Matcher
    from pie_engine.host.profiling import ProfileTap
    from pie_engine.host.programs import Program


class HostServices(FamilyServices, Protocol):
    """What a process needs of its host."""

    cores: Cores
    saved: SavedContexts

    @property
    def runtime_build(self) -> str:
        """Of the shared runtime that guests to be recorded run in."""

    def next_id(self) -> int:
        """For operations, contexts, futures and children; never the same twice in this host."""

    def make_ready(self, process: Process) -> None:
        """Its wait is over."""

    def wake_after(self, process: Process, timeout_us: int) -> None:
        """Unless it is woken before."""

    def has_output(self, process: Process) -> None:
        """Its events are to go out at the end of this turn."""


def fresh_seed() -> int:
    """One that nobody has had."""
    return secrets.randbits(64)


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
    wall_s: float = 0.0
    """Its time if the limits set none. 0: as long as it takes."""
    secrets: Secrets = NO_SECRETS
    trace: Sequence[TraceKind] = ()
    """Who watches its calls."""
    native: str = ""
    """Socket of the Python that runs it; empty: it runs in the sandbox."""
    endowment: int = 0
    """Micro-credits, in each core that it uses."""
    priority: int = 0
    bid: int | None = None
    """What its owner bids for all its contexts at first; None: it bids for itself."""
    compiles: bool = False
    """`describe`: whether modules that nothing imports have to compile, too."""
    parent: Process | None = None
    """The process that has launched it; None: a client has."""
    bond: Child | None = None
    """As its parent has it."""
    inherits: int | None = None
    """Of a child: micro-credits that it gets out of its parent's, in each core; None: an eighth."""

    @classmethod
    def of(
        cls,
        order: Launch,
        program: Program,
        conclude: Callable[[Process, Ending], None],
        parent: Process | None,
        bond: Child | None,
    ) -> Job:
        """To run a program. `parent` and `bond`: of a child."""
        return cls(
            order.pid,
            order.user,
            program,
            "run",
            (order.input,),
            conclude,
            secrets=order.secrets,
            trace=order.trace,
            native=order.native,
            endowment=order.endowment,
            priority=order.priority,
            bid=order.bid,
            parent=parent,
            bond=bond,
            inherits=order.inherits,
        )


class Process:
    """From launch to its terminal event. It is the owner of its guest and what the WIT interfaces act upon."""

    def __init__(
        self,
        job: Job,
        services: HostServices,
        limits: HostSection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job = job
        self.pause = Pause(clock)
        self.pid = job.pid
        self.program = job.program
        self.limits = GrantedLimits.of(job.program.manifest.limits, limits)
        self.guest: Guest | None = None
        self.num_calls = 0
        self._usage = NO_USAGE
        self.num_tokens = 0
        """Generated by models, as far as the program has taken them."""
        self.is_waiting = False
        self.is_queued = False
        self.awaits_component = False
        """Its component is being compiled."""
        self.has_ended = False
        self.wake_at: float | None = None
        """When its wait times out; None: never, or it does not wait."""
        self.alarm_at: float | None = None
        """When its timer goes off next, which may be earlier than `wake_at`, but is never later."""
        self.is_terminated = False
        self.doom: PieError | None = None
        """How it will end, whatever its guest does from now on."""
        self.redact = Redaction(job.secrets.values)
        redact = self.redact.in_json if job.secrets.values else None
        parent_log = None if job.parent is None else job.parent.events
        self.events: EventLog = EventLog(job.pid, int(self.limits.output_mb * MIB), redact, parent_log)
        self.mailbox = Mailbox(self.notify)
        self.futures = FutureTable()
        self.generations: GenerationLog | None = None
        """None: nobody collects traces."""
        self.contexts: dict[int, Context] = {}
        self.matchers: dict[int, Matcher] = {}
        self.wallet = Wallet(job)
        self.family = Family(self, services, limits)
        self.new_seed: Callable[[], int] = fresh_seed
        """Of the random numbers of a context that has no seed of its own."""
        self.tap: Tap | None = None
        self.places = Places()
        self.surroundings: Surroundings | None = None
        """Where a guest that is recorded has its time and chance from."""
        self.profile: ProfileTap | None = None
        """Of a guest that is profiled: who takes what is no call."""
        self._wait_began: tuple[int | None, int] = (None, 0)
        """Timeout and time of the wait that its guest is in; kept for its tap."""
        self._services = services
        self._seen_seq = 0
        self._cpu_ns = 0
        self._num_calls_seen = 0

    def next_id(self) -> int:
        return self._services.next_id()

    # Counting.

    @property
    def usage(self) -> Usage:
        """Of all plans together, and what the market has taken."""
        wallet = self.wallet
        return msgspec.structs.replace(
            self._usage, completion_tokens=self.num_tokens, spent=wallet.spent, endowment=wallet.endowment
        )

    def count(self, usage: Usage, before: Usage) -> None:
        """A plan whose usage was `before` has come to `usage`."""
        self._usage = self._usage.plus(usage).plus(before, times=-1)

    # Waiting.

    @property
    def runtime_build(self) -> str:
        """Of the runtime that it runs in, if it is to be recorded; empty for a standalone component."""
        return "" if self.program.is_component else self._services.runtime_build

    @property
    def is_recorded(self) -> bool:
        return "record" in self.job.trace

    def watch(self) -> None:
        """Begin what its launch asked for. Its log must have begun."""
        self.tap = make_tap(self, self.job.trace)

    def begin_wait(self, timeout_us: int | None) -> list[int] | None:
        """`futures.wait-any`: what is ready, or None: the guest is to be suspended."""
        if self.tap is None:
            return self._begin_wait(timeout_us)
        now_ns = time.monotonic_ns()
        self._wait_began = timeout_us, now_ns
        try:
            ready = self._begin_wait(timeout_us)
        except PieError as error:
            self.tap.waited(Waited(timeout_us, (), error, now_ns, now_ns))
            raise
        if ready is not None:
            self.tap.waited(Waited(timeout_us, ready, None, now_ns, now_ns))
        return ready

    def _begin_wait(self, timeout_us: int | None) -> list[int] | None:
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
        ready = self.futures.take_ready()
        if self.tap is not None:
            timeout_us, began_ns = self._wait_began
            self.tap.waited(Waited(timeout_us, ready, None, began_ns, time.monotonic_ns()))
        return ready

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

    @property
    def saved(self) -> SavedContexts:
        return self._services.saved

    def context(self, ctx: int) -> Context:
        context = self.contexts.get(ctx)
        if context is None:
            raise NotFound(f"context {ctx} does not exist", hint="it was released, or never created")
        return context

    def create_context(self, model: str, seed: int | None, adapter: str = "") -> Context:
        core = self.core(model)
        self.wallet.enter(core)
        return self.adopt(Context.create(self, core, seed, adapter))

    def adopt(self, context: Context) -> Context:
        self.contexts[context.ctx] = context
        return context

    def release_context(self, ctx: int) -> None:
        context = self.contexts.pop(ctx, None)
        if context is not None:
            context.release()
            self.matchers = {key: each for key, each in self.matchers.items() if each.context is not context}

    def matcher(self, handle: int) -> Matcher:
        matcher = self.matchers.get(handle)
        if matcher is None:
            raise NotFound(f"matcher {handle} does not exist", hint="it was released, or its context was")
        return matcher

    def keep_matcher(self, matcher: Matcher) -> int:
        self.matchers[matcher.handle] = matcher
        return matcher.handle

    def release_matcher(self, handle: int) -> None:
        matcher = self.matchers.pop(handle, None)
        if matcher is not None:
            matcher.release()

    def uses(self, core: CoreView) -> bool:
        looks = (future.core for future in self.futures if isinstance(future, MarketLook))
        return any(used is core for used in (*(context.core for context in self.contexts.values()), *looks))

    def wait_for_pages(self, model: str, news: Waits) -> None:
        """It waits for KV pages of `model`. Whoever follows its events sees why nothing comes."""
        if news.num_free < news.num_pages:
            why = "other contexts have the rest"
        else:
            why = "but left for those before it, and for those that grow"
        free = f"{news.num_free} of {news.num_in_all} are free"
        self.tell("info", f"waiting for {news.num_pages} KV pages of {model}: {free}, {why}")

    def secret(self, name: str) -> str:
        """Raises `NotFound` saying how to get at it."""
        value = self.job.secrets.values.get(name)
        if value is None:
            raise NotFound(
                f"this program has no secret `{name}`",
                hint=f'name it in pie.toml, `secrets = ["{name}"]` in `[program]`, and `pie secret set {name}`',
            )
        return value

    # Output.

    def tell(self, level: Literal["info", "warning", "error"], message: str) -> None:
        """A line of Pie's own among the program's logs."""
        self.events.add("log", json_text({"level": level, "message": message}))
        self._services.has_output(self)

    def output(self, kind: EventKind, data: str) -> None:
        """JSON that counts as output; over the limit the program ends."""
        self._output(lambda: self.events.output(kind, data))
        if kind == "message":
            self.family.tell_message(data)

    def write(self, kind: EventKind, text: str) -> None:
        """Text of a standard stream."""
        self._output(lambda: self.events.write(kind, text))

    def send_piped(self, text: str) -> None:
        """A chunk's text, on its way past the program, which therefore cannot be told of a failure."""
        try:
            self.output("message", json_text(text))
            if self.tap is not None:
                self.tap.piped(text)
        except LimitExceeded:
            self._services.make_ready(self)

    def _output(self, append: Callable[[], None]) -> None:
        if self.doom is not None:
            raise self.doom
        try:
            append()
        except TooMuchOutput as over:
            self.doom = self._too_much(over)
            raise self.doom from None
        self._services.has_output(self)

    def _too_much(self, over: TooMuchOutput) -> LimitExceeded:
        if over.pid != self.pid:
            message = f"the output of its parent, {over.pid}, with that of its children is more than "
            message += f"{over.max_bytes / MIB:.4g} MB"
            return LimitExceeded.of("output_limit", message, hint="send less, or raise `output_mb` of the parent")
        message = f"the program's output is more than {self.limits.output_mb:g} MB"
        return self.limits.exceeded("output_mb", message, otherwise="send less")

    def has_trace(self) -> None:
        """Its tap has written something."""
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
        if self.profile is not None:
            self.profile.ran(used_ns)
        if self._cpu_ns > self.limits.cpu_s * 1e9 and self.doom is None:
            self.doom = self.limits.exceeded(
                "cpu_s",
                f"the program computed for {self.limits.cpu_s:g} s without a call to the engine",
                otherwise="await something now and then",
            )

    # The end.

    def close(self) -> None:
        """Give back what the cores hold. The guest is freed by the host."""
        self.has_ended = True
        self.guest = None
        for context in self.contexts.values():
            for operation in context.operations.values():
                context.core.operations.pop(operation.handle, None)
        for future in self.futures:
            if isinstance(future, MarketLook):
                future.forget()
        self.contexts.clear()
        for core in self._services.cores:
            core.close(self.pid)
