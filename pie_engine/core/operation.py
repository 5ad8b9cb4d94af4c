"""What a host asks of a context, in the form in which the loop runs it: row after row until it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pie_engine.core.adapters import Adapters
from pie_engine.core.archive import Archive
from pie_engine.core.latencies import Latencies
from pie_engine.core.state import Context
from pie_engine.driver.base import Row, RowResult
from pie_engine.errors import ContextTooLong, ErrorInfo, InvalidInput, OutOfPages, Unsupported
from pie_engine.grammar.compile import Compiler
from pie_engine.grammar.mask import Mask, Masks
from pie_engine.kv.context import KvContext
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import NO_USAGE, Usage
from pie_engine.protocol.sampling import NO_PROBES, Probes, Sampler
from pie_engine.protocol.sight import Sight
from pie_engine.protocol.to_host import Failed

if TYPE_CHECKING:
    from pie_engine.core.profile import Seen


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What operations need to know about the model and the pool."""

    label: str
    tokenizer: Tokenizer
    vocab_size: int
    max_context_tokens: int
    max_top_k: int
    has_layouts: bool
    page_size: int
    num_pages: int
    grammars: Compiler
    masks: Masks
    """Of the next step."""
    adapters: Adapters
    archive: Archive | None
    """Of saved contexts; None: this core has no folder for them."""
    has_draft_model: bool = False
    latencies: Latencies = field(default_factory=Latencies)

    def check_probes(self, probes: Probes, top_k: str = "top_k") -> None:
        """`top_k` is what the program knows that field as."""
        if not 0 <= probes.top_k <= self.max_top_k:
            raise InvalidInput(f"`{top_k}` has to be from 0 to {self.max_top_k} on {self.label}; got {probes.top_k}")
        self.check_tokens(probes.logprobs_of)

    def check_tokens(self, tokens: list[int]) -> None:
        """Ids outside the vocabulary would be a device failure later on."""
        if tokens and not (min(tokens) >= 0 and max(tokens) < self.vocab_size):
            wrong = next(token for token in tokens if not 0 <= token < self.vocab_size)
            raise InvalidInput(f"token id {wrong} is not in the vocabulary of {self.label} (0 … {self.vocab_size - 1})")

    def check_layouts(self) -> None:
        """Refuse where everything that a token sees is everything before it."""
        if not self.has_layouts:
            raise Unsupported(
                f"{self.label} has attention of its own: its contexts take no `drop`, `window`, `mask` or `positions`"
            )

    def check_window(self, size: int | None, sinks: int) -> None:
        if size is None:
            if sinks:
                raise InvalidInput("sinks need a window: they are what is seen besides it")
            return
        self.check_layouts()
        if not (size >= 1 and sinks >= 0):
            raise InvalidInput(f"window must be 1 or more and sinks 0 or more, not {size} and {sinks}")

    def check_sight(self, sight: Sight, num_tokens: int) -> None:
        """Refuse what can never run, of a context that was saved; its manifest may come from elsewhere."""
        if sight.is_view:
            self.check_layouts()
        fault = sight.fault(num_tokens, self.page_size)
        if not fault and any(position >= self.max_context_tokens for position in sight.positions(num_tokens)):
            fault = f"its positions go beyond those of {self.label}"
        if fault:
            raise InvalidInput(f"what was saved cannot be used: {fault}")

    def check_length(self, kv: KvContext, num_more: int = 0) -> None:
        """Refuse what can never run: `kv` with `num_more` tokens."""
        num_tokens, num_positions = kv.num_tokens + num_more, kv.next_position + num_more
        if num_positions > self.max_context_tokens:
            what = f"{num_tokens} tokens" if num_tokens == num_positions else f"a token at position {num_positions - 1}"
            hint = "shorten the prompt, or use a model with a longer context"
            if kv.view is not None:
                hint = "what was dropped keeps its positions: append what is still seen to a new context"
            raise ContextTooLong(f"the context has {what}; {self.label} takes {self.max_context_tokens}", hint=hint)
        # A bounded context lets pages go as it grows.
        if not kv.is_bounded and num_tokens > self.num_pages * self.page_size:
            raise out_of_pages(num_tokens, self)


def out_of_pages(num_tokens: int, facts: ModelFacts) -> OutOfPages:
    num_needed = -(-num_tokens // facts.page_size)
    return OutOfPages(
        f"the context has {num_tokens} tokens and needs {num_needed} KV pages of {facts.page_size} tokens; "
        f"{facts.label} has {facts.num_pages} in all",
        hint="raise `num_pages` or `kv_memory_mb` of the model in the configuration",
    )


class Operation:
    """One flush, pass or plan. The loop calls `begin` at its turn, then `row` and `settle` until it `is_over`."""

    __slots__ = (
        "_asks_more",
        "_probes",
        "_prompt_length",
        "_sampler",
        "_want_logprob",
        "arrival",
        "awaits_disk",
        "context",
        "deadline",
        "facts",
        "guesses",
        "has_begun",
        "is_over",
        "is_random",
        "is_runnable",
        "kv",
        "last_step",
        "num_run",
        "op",
        "rank",
        "seen",
    )

    def __init__(self, op: int, context: Context, facts: ModelFacts, arrival: int) -> None:
        self.op = op
        self.context = context
        self.kv = context.kv
        self.facts = facts
        self.arrival = arrival
        """Place in the queue of the core: small is old."""
        self.deadline: float | None = None
        """When it ends, wherever it is then."""
        self.last_step = 0
        """The step in which it last ran."""
        self.rank = 0
        """In a step that may not hold all, see `Ranking`."""
        self.num_run = 0
        """Tokens that have gone through the model for it."""
        self.awaits_disk = False
        """Its KV is being read."""
        self.has_begun = False
        self.is_runnable = False
        """Whether the scheduler has it in its list."""
        self.is_over = False
        self.guesses = False
        """Whether `draft` may have something."""
        self.seen: Seen | None = None
        """What is written down of it, in a process that is profiled."""
        self._ask(None)

    kind: ClassVar[str] = "operation"
    """In profiles."""

    @property
    def usage(self) -> Usage:
        """Tokens that it took, as far as it has come."""
        return NO_USAGE

    def _ask(
        self,
        sampler: Sampler | None,
        probes: Probes = NO_PROBES,
        want_logprob: bool = False,
        *,
        has_mask: bool = False,
    ) -> None:
        """What is wanted of the last position; without a sampler its logits are not needed. `has_mask`: see
        `_ask_mask`."""
        self._sampler, self._probes, self._want_logprob = sampler, probes, want_logprob
        self.is_random = sampler is not None and not sampler.is_greedy
        """Whether its rows need random numbers."""
        self._asks_more = sampler is not None and bool(
            has_mask or sampler.reads_history or sampler.xtc_probability or sampler.mirostat_tau
        )
        """Whether its draws need more than the logits and one random number."""
        self._prompt_length = 0

    def begin(self) -> None:
        """Its turn on the context has come: set `has_begun` and what it needs. Raises what makes it impossible."""
        raise NotImplementedError

    @property
    def is_ready(self) -> bool:
        """Whether it could begin, if it is its turn."""
        return True

    @property
    def is_writing(self) -> bool:
        """Whether what it has to run are the last tokens that were written, so that a guess may follow them."""
        return False

    def draft(self, most: int) -> int:
        """Guess at most `most` tokens for the next row; returns how many it has guessed."""
        return 0

    def add_drafts(self, row: Row) -> None:
        """Put what `draft` has guessed behind the tokens of the row."""

    def row(self, num_tokens: int) -> Row:
        """The next `num_tokens` uncomputed tokens as a row."""
        kv = self.kv
        start = kv.num_computed
        # Past some calls where that can be, since this is done for every token of every reply.
        own, page_ids = kv.tokens.own, kv.table.ids or kv.page_ids
        if start + num_tokens < kv.num_tokens:
            row = Row(kv.tokens[start : start + num_tokens], start, page_ids)
        else:
            if num_tokens == 1 and own:
                tokens: Sequence[int] = (own[-1],)
            else:
                tokens = own[-num_tokens:] if num_tokens <= len(own) else kv.tokens[start:]
            uniform = self.context.random.draw(kv.num_tokens) if self.is_random else 0.0
            row = Row(tokens, start, page_ids, self._sampler, uniform, self._probes, self._want_logprob)
            if self._asks_more and self._sampler is not None:
                self._prepare(row, self._sampler)
        if self.context.adapter_id:
            row.adapter = self.context.adapter_id
        return row

    def _prepare(self, row: Row, sampler: Sampler) -> None:
        """What the draw needs besides the logits and one random number."""
        context = self.context
        row.mask = self._ask_mask()
        if sampler.reads_history:
            row.history, row.prompt_length = context.memory.history(context.kv.tokens), self._prompt_length
        if not sampler.is_greedy:
            if sampler.xtc_probability:
                row.xtc_uniform = context.random.draw(row.end, 1)
            if sampler.mirostat_tau:
                row.mirostat_mu = context.memory.bound(row.end, sampler.mirostat_tau)

    def settle_draw(self, mirostat_mu: float) -> None:
        """What the draw leaves for the next one: mirostat's bound."""
        if self._sampler is not None:
            self.context.memory.set_bound(self.kv.num_tokens, self._sampler.mirostat_tau, mirostat_mu)

    def _ask_mask(self) -> Mask | None:
        """Of the tokens that may come next; None: all."""
        return None

    def settle(self, result: RowResult, now: float) -> None:
        """The last token has been computed; its sample is in `result`."""
        raise NotImplementedError

    def refuse(self, error: ErrorInfo) -> None:
        """The device has nothing for its last token."""
        self.fail(error)

    def outgrow(self) -> None:
        """Its context needs more pages than there are."""
        self.fail(out_of_pages(self.kv.num_tokens, self.facts).info)

    def expire(self) -> None:
        """Its time is over: what there is goes to the program."""
        raise NotImplementedError

    def stop(self, keep: int) -> None:
        """Called off by the program."""
        raise NotImplementedError

    @property
    def is_parked(self) -> bool:
        """Whether it waits for its consumer."""
        return False

    def fail(self, error: ErrorInfo) -> None:
        """End with an error; the only answer that the host gets from now on."""
        self.is_over = True
        self.context.process.host.send(Failed(self.op, error))

    def check_context(self) -> None:
        """What every operation needs before it runs."""
        if self.context.fault is not None:
            raise self.context.fault.raised()
        self.facts.check_length(self.kv)

    def require_logits(self) -> None:
        """The last token has to run (again) for its logits."""
        kv = self.kv
        if not kv.num_tokens:
            raise InvalidInput("the context is empty", hint="append at least one token first")
        if not kv.num_uncomputed:
            kv.uncompute(kv.num_tokens - 1)
