"""Messages that the gateway receives: from hosts (events) and cores (stats)."""

from __future__ import annotations

from typing import Literal

import msgspec

from pie_engine.errors import ErrorInfo
from pie_engine.protocol.plan import NO_USAGE, Usage
from pie_engine.protocol.program import Signature
from pie_engine.protocol.stats import Batches, ContextState, Histogram, MarketState

EventKind = Literal["started", "message", "stdout", "stderr", "log", "trace", "return", "error"]
ActivityState = Literal["", "starting", "computing", "waiting: children", "waiting: client", "waiting: timer"]
TRACE_KIND = "trace"
"""Of interest only to who asks for it."""
TERMINAL_KINDS: frozenset[str] = frozenset({"return", "error"})


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what the gateway receives."""


class Event(Message, frozen=True):
    """Event `seq` (from 1, no gaps) of a process. `data` is JSON; of an `error` it is an `ErrorInfo`."""

    pid: str
    seq: int
    kind: EventKind
    data: str
    time: float
    """Seconds since the epoch."""
    usage: Usage = NO_USAGE
    """Of the terminal event: of all plans of the process, as far as it has taken what came of them."""

    @property
    def is_terminal(self) -> bool:
        return self.kind in TERMINAL_KINDS


class Registered(Message, frozen=True):
    """First message of a host to a gateway, also to a new one: what it runs. Events that are not yet stored follow."""

    pids: list[str]
    """Every process that runs here or whose last event has not been stored."""
    paused: list[str] = []
    """Those of them that are paused."""


class LaunchChild(Message, frozen=True):
    """A process asks for a child. Answered by its `Launch` to the same host, or by `ChildRefused`. Asked again of a new
    gateway, it is the same child."""

    parent: str
    request: int
    program: str
    """`name@version` or `name`. The parent's own is its very program."""
    input: str
    """JSON."""
    endowment: int | None
    """Micro-credits out of the balance of its parent, in each core; None: an eighth of what is left there."""


class Described(Message, frozen=True):
    request: int
    signature: Signature | None = None
    error: ErrorInfo | None = None


class Generation(msgspec.Struct, frozen=True, array_like=True):
    """A generation of a process. Times are seconds since the epoch."""

    model: str
    began: float
    first_token: float | None = None
    ended: float | None = None
    """None: it was under way when its process ended."""
    finish: str = ""
    """Its finish reason, or `error`."""
    usage: Usage = NO_USAGE


class Generations(Message, frozen=True):
    """Of a process, right before its last event; only where traces are collected."""

    pid: str
    generations: list[Generation]
    num_left_out: int = 0


class Settled(Message, frozen=True):
    """Of a process that has ended: what the market has taken in the end, where that is not what its last event says."""

    pid: str
    spent: int
    """These two as in `Usage`."""
    endowment: int


class Activity(msgspec.Struct, frozen=True, array_like=True):
    """What a process does while it asks no core for anything."""

    state: ActivityState = ""
    """Empty: it waits for a core, which knows why."""
    why: str = ""
    """For whom or what, in a few words."""
    until: float | None = None
    """When a timer lets it go on, in seconds since the epoch; None: it has set none."""


class HostStats(Message, frozen=True):
    num_running: int
    num_warm: int
    cpu_s: float
    rss_bytes: int
    activities: dict[str, Activity] = {}
    """By pid: of those that do something else than in the report before."""


class ProcessUsage(msgspec.Struct, frozen=True, array_like=True):
    """What one process holds in a core. `state` says what it does or waits for."""

    pid: str
    num_contexts: int
    num_pages: int
    num_tokens: int
    """Generated so far."""
    state: str
    """`running`, `idle`, `paused`, `waiting: batch`, `waiting: pages (N needed, M free, PID has K)` with `M free but
    left for others` where they would be enough, `waiting: disk`, `waiting: grammar`, `waiting: consumer`,
    `waiting: credits (bids B, the price is P)`."""
    num_prompt: int = 0
    """Tokens of the prompts of its plans that are over, and those of them that did not have to run."""
    num_cached: int = 0
    num_drafted: int = 0
    """Tokens guessed, and those of them that were right."""
    num_accepted: int = 0
    num_host_pages: int = 0
    """Pages of its contexts that are in host memory and have to come back before they can be used."""
    num_pages_needed: int = 0
    """That it waits for; 0: it does not wait for pages."""
    num_shared_pages: int = 0
    """Of `num_pages`, those that other processes hold as well."""
    num_batch_tokens: int = 0
    """Tokens of all kinds that ran for it."""
    bid: int = 0
    """These as in `stats.ProgramState`."""
    balance: int = 0
    endowment: int = 0
    rent: int = 0
    dividends: int = 0
    num_made: int = 0
    num_moved_out: int = 0


class CoreStats(Message, frozen=True):
    model: str
    num_pages: int
    num_free_pages: int
    num_preemptions: int
    batches: Batches = Batches()
    processes: list[ProcessUsage] | None = []
    """None: as in the message before. To look at many takes time, so that is done less often."""
    num_violations: int = 0
    """Pages that did not add up when the core was idle: more than 0 is our bug."""
    num_cached_pages: int = 0
    """Of the free ones, those that still hold KV which a prompt may find."""
    num_page_hits: int = 0
    """Pages of prompts that were found instead of computed, by contexts that did not have them before."""
    num_page_misses: int = 0
    """Pages of prompts that were computed, for the first time in their contexts."""
    num_host_pages: int = 0
    """KV pages that host memory holds for those that have lost their place, and how many it holds now."""
    num_used_host_pages: int = 0
    num_page_returns: int = 0
    """Pages that came back from there."""
    market: MarketState = MarketState()
    ttft_s: Histogram | None = None
    """These two as in `stats.Requests`, since the core began."""
    tpot_s: Histogram | None = None
    uptime_s: float = 0.0
    cpu_s: float = 0.0
    rss_bytes: int = 0
    device_use: float | None = None
    device_memory_bytes: int = 0
    """These two as in `stats.ModelState`."""


class AdapterAnswer(Message, frozen=True):
    """Of a core, to an order of the gateway."""

    request: int
    error: ErrorInfo | None = None


class ContextList(Message, frozen=True):
    """Of a core: the contexts that a process has there, those that were forked from others behind these."""

    request: int
    contexts: list[ContextState]


OrderAnswer = AdapterAnswer | ContextList
HostReport = Event | Registered | LaunchChild | Described | Generations | Settled | HostStats
GatewayMessage = (
    Event
    | Registered
    | LaunchChild
    | Described
    | Generations
    | Settled
    | HostStats
    | CoreStats
    | AdapterAnswer
    | ContextList
)
