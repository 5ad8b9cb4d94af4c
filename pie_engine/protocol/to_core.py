"""Messages that a core receives: from hosts, and those at the end from the gateway.

Context and operation ids are chosen by the host (unique within it, never used again), so nothing here needs an answer
before the next message can be sent. Messages of one host are handled in the order in which they were sent.
"""

from __future__ import annotations

import msgspec

from pie_engine.protocol.credits import CREDIT
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.plan import BeamPlan, Grammar, Plan
from pie_engine.protocol.sampling import NO_PROBES, Probes, Sampler
from pie_engine.protocol.sight import Sight


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what a core receives."""


class OpenProcess(Message, frozen=True):
    pid: str
    program: str
    user: str = ""
    is_profiled: bool = False
    """Its host hears what takes how long: `Profiled`."""
    endowment: int | None = 1000 * CREDIT
    """Micro-credits. Of a child they come out of the balance of its parent, as far as that goes; None: an eighth."""
    priority: int = 0
    """A higher one goes first, where the policy asks for it."""
    bid: int | None = None
    """As `SetProcessBid` would say."""
    parent: str = ""
    """A process of the same host that was opened before."""


class CloseProcess(Message, frozen=True):
    """Frees every context and operation of the process. Unknown processes are ignored."""

    pid: str


class Endow(Message, frozen=True):
    """The process gets `amount` micro-credits more, and with them a larger part of the dividends."""

    pid: str
    amount: int


class SetProcessBid(Message, frozen=True):
    """What its owner bids for all contexts of the process, whatever it says itself: micro-credits for a page and a
    step. None: it bids for itself again."""

    pid: str
    bid: int | None


class PauseProcess(Message, frozen=True):
    """Its operations do not run, and their deadlines move, until `ResumeProcess`; its pages are the first to go."""

    pid: str


class ResumeProcess(Message, frozen=True):
    pid: str


class LookAtMarket(Message, frozen=True):
    """Answered at once by `MarketSeen`, as the process sees it."""

    op: int
    pid: str


class CreateContext(Message, frozen=True):
    ctx: int
    pid: str
    seed: int
    adapter_id: str = ""
    """Empty: the model as it is."""


class Append(Message, frozen=True):
    ctx: int
    tokens: list[int]
    placement: Placement | None = None


class Fork(Message, frozen=True):
    """`child` starts as the first `length` tokens of `ctx`."""

    ctx: int
    child: int
    length: int


class Truncate(Message, frozen=True):
    ctx: int
    length: int


class Drop(Message, frozen=True):
    """The last token, read again, and all that come after it do not see the tokens `first … end - 1`."""

    ctx: int
    first: int
    end: int


class Slide(Message, frozen=True):
    """The last token, read again, and all that come after it see the last `window` tokens and the first `sinks`."""

    ctx: int
    window: int
    sinks: int


class Restore(Message, frozen=True):
    """The tokens of `ctx` come from the saved context `name`: their KV can be read instead of computed."""

    ctx: int
    name: str
    sight: Sight | None = None
    """What they see; None: everything before them."""


class Save(Message, frozen=True):
    """Compute the context to its end and keep it under `name`, with `meta` for who opens it.

    Answered when it is on the disk; unless `durable` when its KV is set aside, and `SaveFailed` may follow.
    """

    op: int
    ctx: int
    name: str
    meta: str = ""
    durable: bool = True


class Release(Message, frozen=True):
    ctx: int


class SetBid(Message, frozen=True):
    """What the program bids for `ctx`: micro-credits for a page and a step. None: the default, which spreads its
    balance. Forks bid what their parent did."""

    ctx: int
    bid: int | None


class SetAway(Message, frozen=True):
    """The program needs `ctx` for nothing now: it bids 0 until the next operation on it, or until it is back."""

    ctx: int
    is_away: bool


class Flush(Message, frozen=True):
    op: int
    ctx: int


class Forward(Message, frozen=True):
    op: int
    ctx: int
    tokens: list[int]
    sampler: Sampler | None = None
    probes: Probes = NO_PROBES
    prompt_length: int = 0
    """How many tokens of the context were not generated, for the penalties."""
    matcher: int = 0
    """Of this context, whose mask the sampler gets; 0: none."""
    placement: Placement | None = None


class CreateMatcher(Message, frozen=True):
    """`matcher` is at the start of a grammar. It goes with the context."""

    ctx: int
    matcher: int
    grammar: Grammar


class ForkMatcher(Message, frozen=True):
    """`child`, of the context `child_ctx`, is where `matcher` is."""

    ctx: int
    matcher: int
    child_ctx: int
    child: int


class ChangeMatcher(Message, frozen=True):
    """Give back the last `num_back` tokens, then take `tokens`."""

    ctx: int
    matcher: int
    num_back: int
    tokens: list[int]


class ReleaseMatcher(Message, frozen=True):
    ctx: int
    matcher: int


class Look(Message, frozen=True):
    """Where is the matcher, and how many of `tokens` could it take?"""

    op: int
    ctx: int
    matcher: int
    tokens: list[int]


class Generate(Message, frozen=True):
    op: int
    ctx: int
    plan: Plan


class Search(Message, frozen=True):
    """Beam search from the end of `ctx`, which stays as it is."""

    op: int
    ctx: int
    plan: BeamPlan


class Delivered(Message, frozen=True):
    """The program has taken `num_tokens` tokens of this plan in all, in this epoch; the window moves on."""

    op: int
    epoch: int
    num_tokens: int


class Draft(Message, frozen=True):
    """The program expects `tokens` from token `index` of the plan on; what comes does not depend on it."""

    op: int
    epoch: int
    index: int
    tokens: list[int]


class Steer(Message, frozen=True):
    """Keep the first `keep` tokens of the plan, drop the rest, force `inject` next, go on as `epoch`."""

    op: int
    epoch: int
    keep: int
    inject: list[int] = []


class Stop(Message, frozen=True):
    """End the plan; the context keeps its first `keep` generated tokens. For anything else: call it off."""

    op: int
    keep: int = 0


CoreMessage = (
    OpenProcess
    | CloseProcess
    | Endow
    | SetProcessBid
    | PauseProcess
    | ResumeProcess
    | LookAtMarket
    | CreateContext
    | Append
    | Fork
    | Truncate
    | Drop
    | Slide
    | SetBid
    | SetAway
    | Release
    | Restore
    | Save
    | Flush
    | Forward
    | CreateMatcher
    | ForkMatcher
    | ChangeMatcher
    | ReleaseMatcher
    | Look
    | Generate
    | Search
    | Delivered
    | Draft
    | Steer
    | Stop
)


class LoadAdapter(Message, frozen=True):
    """Load the adapter in `folder` under `name`; answered by `AdapterAnswer`, like the next."""

    request: int
    name: str
    folder: str


class UnloadAdapter(Message, frozen=True):
    request: int
    name: str


class ListContexts(Message, frozen=True):
    """Which contexts a process has; answered by `ContextList`, empty for a process that is not here."""

    request: int
    pid: str


class ReportEvery(Message, frozen=True):
    """Say how things are as often as that, since somebody looks."""

    interval_s: float


AdapterOrder = LoadAdapter | UnloadAdapter
CoreOrder = LoadAdapter | UnloadAdapter | ListContexts | ReportEvery
