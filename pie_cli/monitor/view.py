"""What the screen shows at one moment: made by `state.Reducer`, read by the panels and the diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from pie_cli.monitor.series import History, Series
from pie_engine.protocol.stats import ContextState, HostState, ModelState, ProgramState, Requests, Snapshot


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the log: a context moved out, a core started again, a failure."""

    at: float
    """Seconds since the epoch."""
    kind: str
    """`moved`, `core`, `host`, `gateway`, `incident`, `ended`."""
    text: str
    pid: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time in which a program was in one state."""

    since: float
    state: str


@dataclass(frozen=True, slots=True)
class ProgramHistory:
    """Of one program on one model. The buffers go on growing while the view stays."""

    phases: Sequence[Phase]
    tokens_s: Series
    pages: Series
    bid: Series
    balance: Series


ELSEWHERE = frozenset(
    {
        "idle",
        "paused",
        "starting",
        "computing",
        "waiting: children",
        "waiting: client",
        "waiting: timer",
        "waiting: consumer",
    }
)
"""States of programs for which their models have nothing to do."""


class Row(msgspec.Struct, frozen=True):
    """A program, with what follows from earlier snapshots. A struct, since there are thousands of them a second."""

    key: str
    """PID, with the model where the program uses several."""
    now: ProgramState
    age_s: float
    in_state_s: float
    tokens_s: float
    """Generated."""
    batch_share: float | None
    """Of what its model ran in the last one to two seconds; None: nothing ran."""
    slow_share: float
    """The same over the last ten to twenty seconds, 0 where nothing ran."""
    num_new_contexts: int
    """Contexts more than ten to twenty seconds ago."""
    cache_hit: float | None
    """Of its prompt tokens, those that did not have to run."""
    accept_rate: float | None
    rent_s: float
    """Micro-credits a second, and below."""
    dividends_s: float
    history: ProgramHistory

    @property
    def is_waiting(self) -> bool:
        return self.now.state.startswith("waiting")

    @property
    def waits_for_what(self) -> str:
        """`batch`, `pages`, …; empty where it does not wait."""
        return self.now.state.partition(": ")[2] if self.is_waiting else ""

    @property
    def is_elsewhere(self) -> bool:
        """It asks no model for anything, or takes nothing of what it has asked for."""
        return self.now.state in ELSEWHERE

    @property
    def label(self) -> str:
        """Program and version."""
        return f"{self.now.program}@{self.now.version}" if self.now.version else self.now.program


@dataclass(frozen=True, slots=True)
class StepRates:
    """What a core has run over some seconds. Everything is 0 where it ran nothing."""

    steps_s: float = 0.0
    prefill: float = 0.0
    """Tokens of a step, and the two below."""
    decode: float = 0.0
    draft: float = 0.0
    sequences: float = 0.0
    """Rows of a step."""
    step_s: float = 0.0
    """Seconds of a step in the driver, and between two."""
    gap_s: float = 0.0
    busy: float = 0.0
    """Of the time, the part in which the driver ran."""
    tokens_s: float = 0.0
    """Of all kinds."""

    @property
    def tokens(self) -> float:
        """Of a step."""
        return self.prefill + self.decode + self.draft


@dataclass(frozen=True, slots=True)
class ModelHistory:
    """Of one core. The buffers go on growing while the view stays."""

    prefill: History = field(default_factory=History)
    """Tokens of a step, and the two below."""
    decode: History = field(default_factory=History)
    draft: History = field(default_factory=History)
    sequences: History = field(default_factory=History)
    step_ms: History = field(default_factory=History)
    gap_ms: History = field(default_factory=History)
    tokens_s: History = field(default_factory=History)
    used_pages: History = field(default_factory=History)
    price: History = field(default_factory=History)
    """Micro-credits."""
    rent_s: History = field(default_factory=History)


@dataclass(frozen=True, slots=True)
class ModelView:
    """A core, with what follows from earlier snapshots."""

    now: ModelState
    rates: StepRates
    """Over the last one to two seconds."""
    slow: StepRates
    """Over the last ten to twenty."""
    peak_sequences: int
    """Most rows of a step in the time of `rates`."""
    cpu: float
    """Cores of the machine that it used: 1.0 is one whole core."""
    hit_rate: float | None
    """Of the prompts' pages in the last ten to twenty seconds, those that were found; None: there were none."""
    rent_s: float
    """Micro-credits a second."""
    num_preempted: int
    """In the last ten to twenty seconds, and below."""
    num_moved_out: int
    history: ModelHistory

    @property
    def num_used_pages(self) -> int:
        return self.now.pages.num_pages - self.now.pages.num_free


@dataclass(frozen=True, slots=True)
class HostView:
    now: HostState
    cpu: float
    """Cores of the machine that it used."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Service:
    """What clients get: rates over ten to twenty seconds, latencies over the last one to two minutes."""

    now: Requests
    launches_s: float
    returns_s: float
    failures_s: float
    new_errors: dict[str, int]
    """Failures by code in the last one to two minutes."""
    num_ended: int
    """Programs that returned or failed in that time."""
    ttft: Percentiles | None
    """None: there were none, as below."""
    tpot: Percentiles | None
    queue: Percentiles | None


@dataclass(frozen=True, slots=True)
class ServiceHistory:
    launches_s: History = field(default_factory=History)
    tokens_s: History = field(default_factory=History)
    """Generated by all models."""
    failures_s: History = field(default_factory=History)
    ttft_ms: History = field(default_factory=History)
    tpot_ms: History = field(default_factory=History)
    """Medians."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule of the diagnosis sees."""

    code: str
    """Also the anchor in docs/monitor.md."""
    is_alert: bool
    """Programs fail or stand still; otherwise they are slower than they could be."""
    sentence: str
    pids: tuple[str, ...] = ()
    """The programs to blame, the first one most."""


@dataclass(frozen=True, slots=True)
class Saved:
    """Saved contexts of this user on the disk."""

    num_contexts: int
    num_bytes: int
    num_new: int = 0
    """Since the monitor began to look, and below."""
    num_deleted: int = 0
    newest: str = ""
    """Name of the one that was saved last."""
    grown_at: float = 0.0
    """When the last one of `num_new` was saved, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class View:
    """All of it."""

    snapshot: Snapshot
    models: tuple[ModelView, ...]
    hosts: tuple[HostView, ...]
    rows: tuple[Row, ...]
    rows_at: float
    """When they were looked at, in seconds since the epoch: with this snapshot, or shortly before."""
    service: Service
    history: ServiceHistory
    log: Sequence[Happening]
    """The newest last."""
    saved: Saved | None = None
    """None: nobody has looked."""
    findings: tuple[Finding, ...] = ()
    """The gravest first."""

    @property
    def at(self) -> float:
        return self.snapshot.at

    def row_of(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)


@dataclass(frozen=True, slots=True)
class Details:
    """What the screen of one program shows beside its row."""

    contexts: tuple[ContextState, ...] = ()
    events: tuple[dict[str, object], ...] = ()
    """As the client gives them: `seq`, `kind`, `data`, `time`."""
    problem: str = ""
    """Why there is nothing newer."""
