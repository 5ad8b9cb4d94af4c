"""The nouns of a core: hosts, their processes, their contexts."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from pie_engine.core.lineage import RandomStream
from pie_engine.core.memory import SamplerMemory
from pie_engine.core.waiting import PageWait
from pie_engine.errors import ErrorInfo
from pie_engine.kv.context import KvContext
from pie_engine.kv.tier import Awaited
from pie_engine.market.ledger import Account, Ledger
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.to_host import Charged, CoreResult

if TYPE_CHECKING:
    from pie_engine.core.archive import Backing
    from pie_engine.core.matchers import HeldMatcher
    from pie_engine.core.operation import ModelFacts, Operation
    from pie_engine.core.plan import PlanOperation
    from pie_engine.core.profile import ProcessProfile


class Host:
    """One host process, from its boot to its death; ids in its messages are its own."""

    def __init__(self, boot_id: str) -> None:
        self.boot_id = boot_id
        self.processes: dict[str, Process] = {}
        self.contexts: dict[int, Context] = {}
        self.operations: dict[int, Operation] = {}
        self.outgoing: list[CoreResult] = []

    def send(self, result: CoreResult) -> None:
        self.outgoing.append(result)


class Process:
    """One inferlet, as far as this core knows it."""

    def __init__(
        self,
        host: Host,
        pid: str,
        user: str,
        ledger: Ledger,
        *,
        priority: int = 0,
        bid: int | None = None,
    ) -> None:
        self.host = host
        self.pid = pid
        self.user = user
        self._ledger = ledger
        self.priority = priority
        self.bid = bid
        """What its owner bids for all its contexts, in place of what it says itself; None: it says."""
        self.told_spent = 0
        """What its host knows of `tell_spent`."""
        self.contexts: dict[int, Context] = {}
        self.wait = PageWait()
        self.paused_at: float | None = None
        """When it was paused; None: it is not."""
        self.profile: ProcessProfile | None = None
        """Who writes down what happens to it, if somebody does."""
        self.seat = 0
        """In the ledger of the core."""
        self.num_batch_tokens = 0
        """Of all kinds, that ran for it."""
        self.num_moved_out = 0
        """Times that one of its contexts lost its pages."""
        self.num_generated = self.num_prompt = self.num_cached = self.num_drafted = self.num_accepted = 0

    @property
    def account(self) -> Account:
        """What it has."""
        return self._ledger.account(self.pid)

    @property
    def operations(self) -> list[Operation]:
        """Whose turn it is on their contexts."""
        return [queue[0] for context in self.contexts.values() if (queue := context.queue)]

    def tell_spent(self) -> None:
        """Its host hears what the market has taken so far, when that has changed."""
        account = self.account
        if account.spent != self.told_spent:
            self.told_spent = account.spent
            self.host.send(Charged(self.pid, account.spent, account.endowment))


class Context:
    """A context of a process, and the operations on it: the first of the queue runs, the others wait behind it."""

    def __init__(self, ctx: int, process: Process, kv: KvContext, random: RandomStream) -> None:
        self.ctx = ctx
        self.parent: int | None = None
        """What it was forked from, which may be gone."""
        self.process = process
        self.kv = kv
        self.random = random
        self.memory = SamplerMemory()
        self.queue: deque[Operation] = deque()
        self.ended_plan: PlanOperation | None = None
        """The last plan, while its program may not know that it has ended and may still steer it."""
        self.fault: ErrorInfo | None = None
        """What went wrong in a message that has no answer of its own; whatever is asked of it then fails so."""
        self.adapter_id = ""
        self.matchers: dict[int, HeldMatcher] = {}
        """That its program holds, by id."""
        self.row = 0
        """In the book of the policy."""
        self.num_made = kv.num_committed_pages
        """Pages from the first one on that its process need not pay any more: it has, or they were found."""
        self.num_seen = self.num_made
        """Pages from the first one on that were there once: to have them again is neither a hit nor a miss of its
        prompts."""
        self.backing: Backing | None = None
        """Where the KV of its first `num_backed` tokens can be read, if it came from there."""
        self.num_backed = 0
        self.awaited: Awaited | None = None
        """Pages that it has lost and comes back for."""
        self.bid: int | None = None
        """Micro-credits for a page and a step, as its program says; None: the default, which spreads its balance."""
        self.is_away = False
        """Its program needs it for nothing until the next operation."""

    @property
    def is_idle(self) -> bool:
        return not self.queue

    @property
    def bid_now(self) -> int | None:
        """What counts: 0 while its program is away or paused, else what its owner says, else its program. None: the
        default."""
        if self.is_away or self.process.paused_at is not None:
            return 0
        return self.bid if self.process.bid is None else self.process.bid

    def has_found(self, num_pages: int) -> None:
        """So many of its first pages are there, not all of them computed here."""
        self.num_made = max(self.num_made, num_pages)

    def has_seen(self) -> int:
        """Its full pages are there; how many of them for the first time."""
        num_new = max(self.kv.num_committed_pages - self.num_seen, 0)
        self.num_seen += num_new
        return num_new

    def extend(self, tokens: list[int], placement: Placement | None, facts: ModelFacts) -> None:
        """Raises `InvalidInput` for a placement that does not fit, `Unsupported` for one that the model cannot have."""
        if placement is None:
            self.kv.extend(tokens)
            return
        facts.check_layouts()
        placement.check(self.kv.num_tokens, len(tokens), facts.max_context_tokens)
        self.kv.extend(tokens, placement.positions or (), placement.spans())

    def drop(self, first: int, end: int) -> None:
        """No token that is read from here on sees the tokens `first … end - 1`; the last one is read again."""
        self.kv.drop(first, end)
        self._forget_backed()

    def slide(self, window: int | None, sinks: int) -> None:
        """Tokens that are read from here on see the first `sinks` and the last `window` tokens. None: as before."""
        if window is not None:
            self.kv.slide(window, sinks)
            self._forget_backed()

    def num_kept(self, length: int) -> int:
        """Of the first `length` tokens, those that see what they saw when the others are taken back."""
        view = self.kv.view
        return length - 1 if view is not None and length < self.kv.num_tokens and view.clips(length) else length

    def _forget_backed(self) -> None:
        """The last token is another one now than the one that was saved."""
        self.num_backed = min(self.num_backed, max(self.kv.num_tokens - 1, 0))

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens, as if the others had never been."""
        self.num_backed = min(self.num_backed, self.num_kept(length))
        self.kv.truncate(length)
        self.num_made = min(self.num_made, self.kv.num_full_at(length))
        self.num_seen = min(self.num_seen, self.kv.num_full_at(length))
        self.memory.truncate(length)
