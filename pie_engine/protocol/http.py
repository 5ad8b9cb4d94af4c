"""Bodies of the gateway's HTTP API, both ways; docs/http.md shows each route."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pie_engine.errors import ErrorInfo
from pie_engine.protocol.plan import Usage
from pie_engine.protocol.program import Bundle, Signature
from pie_engine.protocol.to_host import TraceKind

OnDisconnect = Literal["detach", "terminate"]
ProcessState = Literal["queued", "running", "paused", "ended"]
HealthStatus = Literal["ok", "starting", "degraded"]

PID_HEADER = "Pie-Pid"
DIGEST_HEADER = "Pie-Digest"
EVENT_STREAM = "text/event-stream"


class Body(msgspec.Struct, frozen=True):
    """Base of what the gateway answers. Clients ignore fields that they do not know."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what the gateway is asked. Unknown fields are refused."""


class LaunchRequest(Request, frozen=True):
    """Exactly one of `program` (a reference) and `bundle`."""

    program: str | None = None
    """Digest, `name@version` or `name`."""
    bundle: Bundle | None = None
    input: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    """JSON object: the arguments of `main`."""
    on_disconnect: OnDisconnect = "detach"
    idempotency_key: str | None = None
    """The same key again gives the same process."""
    trace: tuple[TraceKind, ...] = ()
    """What is written down of it: events of kind `trace`, for followers that ask for them with `?trace=1`."""
    native: str = ""
    """Path of a Unix socket at which a Python of the user waits to run it, as `pie debug` does; only for clients on the
    daemon's own socket."""
    endowment: float | None = None
    """Credits that it brings to the market of each model; None: what its manifest names, else what the user's processes
    get."""


class Launched(Body, frozen=True):
    pid: str
    digest: str


class MessageRequest(Request, frozen=True):
    value: msgspec.Raw


class MessageAccepted(Body, frozen=True):
    seq: int


class BidRequest(Request, frozen=True):
    credits: float | None
    """For a page and a step; None: the program bids for itself again."""


class EndowRequest(Request, frozen=True):
    credits: float
    """That it gets beside what it has."""


class SecretRequest(Request, frozen=True):
    value: str

    def __repr__(self) -> str:
        return "SecretRequest(…)"


class SecretView(Body, frozen=True):
    """Its value is not shown to anybody."""

    name: str
    set_at: float
    """Seconds since the epoch."""


class CollectRequest(Request, frozen=True):
    older_than_s: Annotated[float, msgspec.Meta(ge=0)]
    """Since processes have ended."""
    dry_run: bool = False


class Collected(Body, frozen=True):
    """What was deleted, or would be."""

    processes: int
    bytes_before: int
    """Of the database."""
    bytes_after: int


class StopRequest(Request, frozen=True):
    drain: bool = False


class ProcessUsage(Body, frozen=True):
    """What a process holds in the cores, and what it has taken of them."""

    pages: int
    tokens: int
    """Generated."""
    contexts: int
    state: str
    """What the cores do for it; `idle`: it asks them for nothing, and `ProcessView.activity` says what it does."""
    prompt_tokens: int = 0
    """Of all plans, with those of the cache."""
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    host_pages: int = 0
    """In host memory, besides `pages`: they come back before they are used."""
    pages_needed: int = 0
    """That it waits for."""
    bid: int = 0
    """Micro-credits for a page and a step: the highest of its contexts."""
    balance: int = 0
    """Micro-credits left, in all models that it has used; `endowment` is what it was ever given there. Of one that has
    ended: what was left then."""
    endowment: int = 0
    spent: int = 0
    """Micro-credits for pages made and rent, less dividends."""

    @classmethod
    def of(cls, usage: Usage, *, pages: int, contexts: int, state: str) -> ProcessUsage:
        return cls(
            pages,
            usage.completion_tokens,
            contexts,
            state,
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.drafted_tokens,
            usage.accepted_tokens,
            balance=usage.endowment - usage.spent if usage.endowment else 0,
            endowment=usage.endowment,
            spent=usage.spent,
        )


class ProcessView(Body, frozen=True):
    pid: str
    program: str
    version: str
    digest: str
    state: ProcessState
    host: str | None
    created: float
    """Seconds since the epoch."""
    ended: float | None
    outcome: str | None
    """`return`, or the code of the error; None until it has ended."""
    last_event: int
    usage: ProcessUsage | None = None
    activity: str = ""
    """What it does, or waits for and why: as `state` and `waits_for` of `stats.ProgramState`, `waiting: client (to send
    a message)`."""
    parent: str | None = None
    """Process id of the program that has launched it; None: a client has."""


class EventView(Body, frozen=True):
    seq: int
    kind: str
    data: msgspec.Raw
    time: float


class ProgramView(Body, frozen=True):
    digest: str
    name: str
    version: str
    signature: Signature | None = None
    created: float = 0.0


class SightView(Body, frozen=True):
    """What the tokens of a saved context see, where that is not simply everything before them."""

    window: int | None = None
    """The last so many tokens, and the first `sinks`; None: a program has set none."""
    sinks: int = 0
    dropped: int = 0
    """Tokens that were dropped."""
    masked: int = 0
    """Tokens with a mask of their own."""
    moved: bool = False
    """Whether positions are not those of the tokens."""
    pages_gone: int = 0
    """Of its KV: no coming token sees them, so they are not kept."""


class ContextView(Body, frozen=True):
    """A saved context. One that cannot be read has `failed`, and nothing else of it is known."""

    name: str
    model: str
    tokens: int = 0
    bytes: int = 0
    """Of its KV on the disk."""
    saved: float = 0.0
    """Seconds since the epoch."""
    model_id: str = ""
    """Configuration, weights and dtype that it was saved with."""
    page_size: int = 0
    adapter: str = ""
    """Name of the adapter that it was saved with."""
    sight: SightView | None = None
    """None: each token sees everything before it."""
    fits: bool | None = None
    """Whether the model and the adapter as they are loaded now can use it; None: the model is not loaded."""
    failed: ErrorInfo | None = None


class AdapterRequest(Request, frozen=True):
    name: str
    folder: str
    """Absolute; as PEFT has written it."""
    model: str = ""
    """Empty: the default one."""


class AdapterView(Body, frozen=True):
    """One LoRA adapter. One that cannot be loaded any more has `failed`, and nothing of it is known."""

    name: str
    model: str
    adapter_id: str = ""
    """Digest of its files."""
    folder: str = ""
    rank: int = 0
    num_bytes: int = 0
    """Memory that it takes."""
    configured: bool = False
    """The configuration names it: it can be removed there only."""
    failed: ErrorInfo | None = None


class MemberView(Body, frozen=True):
    role: str
    name: str
    ready: bool
    os_pid: int
    detail: dict[str, object] = {}
    """While starting `progress` {text, fraction}; when it cannot start `failed` (ErrorInfo)."""


class Health(Body, frozen=True):
    status: HealthStatus
    version: str
    protocol: int
    os_pid: int
    daemon_os_pid: int
    uptime_s: float
    members: list[MemberView]
    incidents: list[str]
    """Last deaths, newest last."""


class ErrorBody(Body, frozen=True):
    error: ErrorInfo
