"""Messages that a host receives: from cores (results) and from the gateway (processes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from pie_engine.errors import ErrorInfo
from pie_engine.protocol.credits import CREDIT, PolicyName
from pie_engine.protocol.plan import FinishReason, Hypothesis, Usage
from pie_engine.protocol.profile import ForkTimes, OperationTimes, StepTimes
from pie_engine.protocol.program import Bundle
from pie_engine.protocol.sampling import NOTHING_PROBED, Probed, TopToken

TraceKind = Literal["record", "profile"]
"""What can be written down of a process beside its events."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what a host receives."""


# From a core.


# Without lists that nobody fills, and nothing for the collector to look at: most of what a core says is this.
class Chunk(Message, frozen=True, gc=False):
    """Tokens `index … index + len(ids) - 1` of plan `op`. The one with a finish reason is the last of the plan."""

    op: int
    epoch: int
    ids: list[int]
    text: str
    index: int
    logprobs: Sequence[float] = ()
    """These three, if asked for, have one entry for each id; 0 and empty for what was forced."""
    top: Sequence[list[TopToken]] = ()
    entropies: Sequence[float] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None
    """Of the last chunk."""
    so_far: Usage | None = None
    """The same of an earlier chunk: the first one, and each with which it has changed by more than its own tokens."""


class Flushed(Message, frozen=True):
    op: int


class Saved(Message, frozen=True):
    op: int


class SaveFailed(Message, frozen=True):
    """What a save that need not be durable was answered for could not be written after all."""

    op: int
    pid: str
    name: str
    error: ErrorInfo


class Forwarded(Message, frozen=True):
    op: int
    token: int | None = None
    logprob: float | None = None
    probed: Probed = NOTHING_PROBED


class Looked(Message, frozen=True):
    """Where a matcher is: how many of the tokens asked about it could take, whether the grammar is satisfied, and
    complete, and the tokens that have to come next."""

    op: int
    num_fitting: int
    may_end: bool
    is_complete: bool
    forced: list[int]


class Searched(Message, frozen=True):
    """What a beam search has found, best first."""

    op: int
    hypotheses: list[Hypothesis]
    usage: Usage


class Waits(Message, frozen=True):
    """A process has waited for KV pages for a while: it needs `num_pages` more."""

    pid: str
    num_pages: int
    num_free: int
    num_in_all: int


class MarketSeen(Message, frozen=True):
    """The market of a core as one of its processes sees it. Micro-credits; a price or a bid is for a page and a step.

    `rent` and `dividends` are what it has paid and got so far, `num_made` its pages so far, at a credit each.
    """

    op: int
    policy: PolicyName
    price: int
    balance: int
    endowment: int
    rent: int
    dividends: int
    num_made: int
    bid: int
    """The highest of its contexts."""
    num_pages: int
    """That it holds, each once."""
    num_free_pages: int
    num_pages_in_all: int
    num_sequences: int
    """Rows of the last step, and tokens of all of them; most of both."""
    num_tokens: int
    max_sequences: int
    max_tokens: int
    num_waiting: int
    """Contexts of anybody that could run and did not in the last step."""
    step_s: float = 0.0
    """How long the last step took."""
    num_moved_out: int = 0
    """Times that a context of the process has lost its pages."""


class Charged(Message, frozen=True):
    """What the market has taken from a process so far: rent and pages made, less dividends. Micro-credits."""

    pid: str
    spent: int
    endowment: int
    """That it was ever given there."""
    is_final: bool = False
    """It has left: that is what it has paid in the end."""


class Profiled(Message, frozen=True):
    """Of a process that is profiled: operations that are over, and what the core did since the message before."""

    pid: str
    num_pages: int
    """Of the model."""
    page_size: int
    operations: list[OperationTimes]
    steps: list[StepTimes]
    forks: list[ForkTimes]


class Failed(Message, frozen=True):
    """The operation ended with an error; for a plan this is its last message."""

    op: int
    error: ErrorInfo


# From the gateway.


class Secrets(msgspec.Struct, frozen=True):
    """Values by name. Neither in logs nor in tracebacks."""

    values: dict[str, str]

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self.values)})"


NO_SECRETS = Secrets({})


KEPT_COMPONENTS = 4
"""A host keeps so many of the standalone components that it was told of last. They are not sent again by the same
gateway, since each is tens of MiB: only their manifest is."""


class Launch(Message, frozen=True):
    """Start a process. A pid that the host already runs, or has run, is ignored (a gateway may say it twice)."""

    pid: str
    user: str
    digest: str
    bundle: Bundle
    input: str
    """JSON object: the arguments of `main`."""
    secrets: Secrets = NO_SECRETS
    """Those that its manifest names."""
    trace: tuple[TraceKind, ...] = ()
    """What is written down of it: events of kind `trace`."""
    native: str = ""
    """Path of the Unix socket at which its user's own Python waits to run it; empty: it runs in the sandbox."""
    endowment: int = 1000 * CREDIT
    """Micro-credits, in each core that it uses."""
    priority: int = 0
    bid: int | None = None
    """As `BidForProcess` would say."""
    parent: str = ""
    """The process in this host whose `LaunchChild` it answers, with that one's `request`."""
    request: int = 0
    inherits: int | None = None
    """Of a child: as there. Its `endowment` is what its owner has given it besides."""


class ChildRefused(Message, frozen=True):
    """There will be no such child."""

    parent: str
    request: int
    error: ErrorInfo


class Describe(Message, frozen=True):
    """Read the signature of a program; answered by `Described`."""

    request: int
    digest: str
    bundle: Bundle
    compiles: bool = False
    """Whether modules that nothing imports have to compile, too."""


class Deliver(Message, frozen=True):
    """A message of the client to the process; `seq` counts from 1 and duplicates are ignored."""

    pid: str
    seq: int
    value: str


class Terminate(Message, frozen=True):
    pid: str


class Pause(Message, frozen=True):
    """The program does not run until `Resume`, and its wall limit stands still. `Terminate` undoes it."""

    pid: str


class Resume(Message, frozen=True):
    pid: str


class EndowProcess(Message, frozen=True):
    """All micro-credits that the process was ever given, in each core: it gets what it does not have of them."""

    pid: str
    endowment: int


class BidForProcess(Message, frozen=True):
    """What all contexts of the process bid from now on, in micro-credits for a page and a step; None: what it says."""

    pid: str
    bid: int | None


class EventsStored(Message, frozen=True):
    """Everything of `pid` up to `seq` is persisted; the host forgets it."""

    pid: str
    seq: int


class EventsSeen(Message, frozen=True):
    """A client has received everything of `pid` up to `seq` (what `session.drain` waits for)."""

    pid: str
    seq: int


CoreAnswer = Chunk | Flushed | Saved | Forwarded | Looked | Searched | MarketSeen | Failed
"""To an operation."""
CoreNews = SaveFailed | Waits | Charged | Profiled
"""About a process."""
CoreResult = CoreAnswer | CoreNews
GatewayOrder = (
    Launch
    | ChildRefused
    | Describe
    | Deliver
    | Terminate
    | Pause
    | Resume
    | EndowProcess
    | BidForProcess
    | EventsStored
    | EventsSeen
)
