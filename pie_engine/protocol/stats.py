"""What an engine does now: the snapshot of `GET /v1/stats`, which `GET /v1/stats/stream` sends again and again.

Fields that count only grow as long as the `boot` of their owner stays the same, so that a reader gets rates from any
two snapshots, whatever it has missed between them. Credits are integers of micro-credits: `CREDIT` of them are one
credit.
"""

from __future__ import annotations

import msgspec

from pie_engine.protocol.credits import PolicyName
from pie_engine.protocol.http import Body

SNAPSHOT_VERSION = 1
"""Grows when a field changes its meaning; new fields do not change it."""
DEFAULT_INTERVAL_MS = 500
"""Of a stream of snapshots."""
MIN_INTERVAL_MS = 100
MAX_INTERVAL_MS = 30_000
SNAPSHOT_EVENT = "snapshot"
"""Kind of the events of the stream."""
LATENCY_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Of the histograms."""


class Batches(Body, frozen=True):
    """What a core has run since it began."""

    num_steps: int = 0
    num_prefill_tokens: int = 0
    num_decode_tokens: int = 0
    num_draft_tokens: int = 0
    """Guessed tokens that ran beside the decodes."""
    num_sequences: int = 0
    """Rows of all steps together."""
    peak_sequences: int = 0
    """Most rows of one step since the snapshot before of this stream; of a single snapshot: in the last second."""
    step_s: float = 0.0
    """Seconds in the driver."""
    gap_s: float = 0.0
    """Seconds between two steps while something could run: the loop's own work."""
    max_tokens: int = 0
    """Most tokens of a step (`max_batch_tokens`)."""
    max_sequences: int = 0
    """Most rows of a step (`max_batch_sequences`)."""

    @property
    def num_tokens(self) -> int:
        """Of all kinds."""
        return self.num_prefill_tokens + self.num_decode_tokens + self.num_draft_tokens


class Pages(Body, frozen=True):
    """The KV pages of a core."""

    page_size: int = 0
    """Tokens of a page."""
    num_pages: int = 0
    num_free: int = 0
    """Nobody holds them; `num_cached` of them still hold KV that a prompt may find."""
    num_cached: int = 0
    num_host: int = 0
    """Places in host memory, and how many are taken."""
    num_used_host: int = 0
    num_hits: int = 0
    """Pages of prompts that were found instead of computed, and those that were computed, when they ran first: what a
    context had before it was moved out counts as neither."""
    num_misses: int = 0
    num_preemptions: int = 0
    """Times that a context with work to do has lost its pages."""
    num_returns: int = 0
    """Pages that came back from host memory."""


class MarketState(Body, frozen=True):
    """The market of a core; all sums are of its life so far."""

    policy: PolicyName = "market"
    price: int = 0
    """Micro-credits for a page and a step: the highest bid that did not fit in the last one; 0: everything fits."""
    rent: int = 0
    """Micro-credits that were paid, and went back as dividends."""
    made: int = 0
    """Pages made, at one credit each."""
    num_moved_out: int = 0
    """Contexts that lost their pages to others."""


class ModelState(Body, frozen=True):
    """A core and its device."""

    name: str
    boot: str
    ready: bool
    driver: str = ""
    device: str = ""
    dtype: str = ""
    uptime_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the core so far."""
    rss_bytes: int = 0
    device_use: float | None = None
    """0 to 1: how busy the device was lately (NVML); None: nobody knows."""
    device_memory_bytes: int = 0
    batches: Batches = Batches()
    pages: Pages = Pages()
    market: MarketState = MarketState()
    num_looked_tokens: int = 0
    """Tokens of all kinds that had run when its programs were looked at, which is before other numbers if there are
    many: the whole of which their `num_batch_tokens` are parts."""


class HostState(Body, frozen=True):
    """A process that runs programs."""

    name: str
    boot: str
    num_running: int = 0
    num_warm: int = 0
    """Guests that are ready for a launch."""
    cpu_s: float = 0.0
    rss_bytes: int = 0


class ProgramState(Body, frozen=True):
    """A process that is queued or runs, on one model. One that uses two models is here twice; one that has used none
    yet has an empty `model`."""

    pid: str
    user: str
    program: str
    version: str
    state: str
    """`queued`, `paused`, `running` (a model runs for it), `starting`, `computing` (it runs itself, or waits for its
    turn in its host), `idle` (between two of these), or `waiting: …` with what for: `batch`, `pages`, `disk`,
    `grammar`, `credits`, `consumer` (its program takes nothing of what is generated), `client`, `timer`,
    `children` (programs that it has launched)."""
    created: float
    """Seconds since the epoch."""
    model: str = ""
    host: str = ""
    waits_for: str = ""
    """One line about the state: how many pages, who holds them; what the client has to do; how long a timer still
    runs."""
    num_contexts: int = 0
    num_pages: int = 0
    """Held, each once; `num_shared_pages` of them with other processes."""
    num_shared_pages: int = 0
    num_host_pages: int = 0
    """In host memory; they come back before they are used."""
    num_prompt: int = 0
    num_cached: int = 0
    """Prompt tokens that did not have to run."""
    num_generated: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    """Drafted tokens that were right."""
    num_batch_tokens: int = 0
    """Tokens of all kinds that ran for it: its share of the batches."""
    bid: int = 0
    """Micro-credits for a page and a step: the highest of its contexts."""
    balance: int = 0
    endowment: int = 0
    rent: int = 0
    """Micro-credits paid so far."""
    dividends: int = 0
    """Micro-credits got so far."""
    num_made: int = 0
    """Pages made so far, at one credit each."""
    num_moved_out: int = 0
    """Times that one of its contexts lost its pages."""
    parent: str = ""
    """Process id of the program that has launched it; empty: a client has."""


class ContextState(Body, frozen=True):
    """A context of a program, in `GET /v1/processes/PID/contexts`."""

    ctx: int
    parent: int | None
    """The context it was forked from, while that one is there."""
    model: str
    state: str
    num_tokens: int
    num_pages: int
    num_shared_pages: int
    """Of its pages, those that other contexts hold as well."""
    num_host_pages: int
    bid: int
    """Micro-credits for a page and a step."""


class Histogram(Body, frozen=True):
    """`counts[i]` values of at most `bounds[i]`, and not of the bound before; the last count is of all above."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float = 0.0

    def quantile(self, part: float) -> float | None:
        """The value that `part` of all are not above, taken as spread evenly between two bounds, as Prometheus'
        `histogram_quantile` does. What is above the last bound counts as being there. None: there is no value."""
        rank, low = part * sum(self.counts), 0.0
        if not any(self.counts):
            return None
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and rank <= count:
                return low + (bound - low) * rank / count
            rank, low = rank - count, bound
        return low

    def since(self, before: Histogram | None) -> Histogram:
        """What came after `before`, an earlier state of it; None, or one of another life: everything."""
        if before is None or before.bounds != self.bounds or sum(before.counts) > sum(self.counts):
            return self
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return Histogram(self.bounds, counts, self.sum - before.sum)


class Requests(Body, frozen=True):
    """What clients have got from the engine since the gateway began."""

    num_launched: int = 0
    num_queued: int = 0
    """Now."""
    num_running: int = 0
    """Now."""
    num_returned: int = 0
    num_failed: int = 0
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    """`num_failed` by the code of the error."""
    ttft_s: Histogram | None = None
    """Seconds from the arrival of a generation in a core to its first token; None: the core does not say."""
    tpot_s: Histogram | None = None
    """Seconds between two tokens of a generation, over its whole length."""
    queue_s: Histogram | None = None
    """Seconds from a launch to the start of its program."""


class Snapshot(Body, frozen=True):
    """Everything at once. `at` and what it says of time is the clock of the gateway, in seconds since the epoch."""

    at: float
    boot: str
    """Of the gateway: `requests` counts since it began."""
    uptime_s: float
    """Of the daemon."""
    pie: str
    """Version of the engine."""
    version: int = SNAPSHOT_VERSION
    models: tuple[ModelState, ...] = ()
    hosts: tuple[HostState, ...] = ()
    programs: tuple[ProgramState, ...] = ()
    requests: Requests = Requests()
    incidents: tuple[str, ...] = ()
    """What went wrong lately, a line each."""
