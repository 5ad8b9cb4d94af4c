"""`generate`: a plan runs ahead of its program, token after token, and can be steered."""

from __future__ import annotations

from typing import Literal

from pie_engine.core.guessing import Guessing
from pie_engine.core.lineage import RandomStream
from pie_engine.core.operation import ModelFacts
from pie_engine.core.state import Context
from pie_engine.core.text import ReplyText, StopStrings
from pie_engine.driver.base import RowResult, Sample
from pie_engine.errors import ErrorInfo, Internal, InvalidInput, Unsupported
from pie_engine.grammar.mask import Mask
from pie_engine.grammar.match import Matcher
from pie_engine.protocol.plan import MAX_DRAFT_TOKENS, FinishReason, Plan
from pie_engine.protocol.sampling import check_sampler

Ending = Literal["none", "finished", "failed"]
"""How a plan came to its end by itself. Until its program has seen that, it may still steer or stop it."""


class PlanOperation(Guessing):
    """What becomes of a plan: its turn, its tokens, its end."""

    __slots__ = (
        "_early_inject",
        "_end_reason",
        "_grammar",
        "ending",
    )

    def __init__(
        self,
        op: int,
        plan: Plan,
        context: Context,
        facts: ModelFacts,
        arrival: int,
        now: float = 0.0,
    ) -> None:
        super().__init__(op, plan, context, facts, arrival)
        self.deadline = None if plan.timeout_s is None else now + plan.timeout_s
        self.arrived_at = now
        self._end_reason: FinishReason = "length"
        self._early_inject: list[int] | None = None
        """Steered before it began: what is forced then."""
        self._grammar = None if plan.grammar is None else facts.grammars.compile(plan.grammar)
        self.ending: Ending = "none"

    @property
    def is_ready(self) -> bool:
        return self._grammar is None or self._grammar.is_done

    def begin(self) -> None:
        self._check_plan()
        self.check_context()
        kv, plan, facts = self.kv, self._plan, self.facts
        self._start = self._prompt_length = kv.num_tokens
        self.context.slide(plan.window, plan.sinks)
        self._end, self._end_reason = kv.num_tokens + facts.max_context_tokens - kv.next_position, "context"
        if plan.max_tokens is not None and self._start + plan.max_tokens <= self._end:
            self._end, self._end_reason = self._start + plan.max_tokens, "length"
        eos_ids = () if plan.ignore_eos else facts.tokenizer.eos_ids
        self._stop_tokens = frozenset((*plan.stop_tokens, *eos_ids))
        self._text = ReplyText(facts.tokenizer, kv.tokens, StopStrings(plan.stop))
        if self._grammar is not None:
            self._matcher = self._grammar.matcher()
            self._stops = self._matcher.vocabulary.words_of(self._stop_tokens)
        self.has_begun = True
        if plan.seed is not None:
            self.context.random = RandomStream(plan.seed)
            self.context.memory.forget_bounds()
        if self._early_inject is None:
            self._go_on()
        else:
            self.steer(self.epoch, 0, self._early_inject)

    def _check_plan(self) -> None:
        check_sampler(self._plan.sampler, self.facts.vocab_size)
        self.facts.check_probes(self._probes, "top_logprobs")
        if self._plan.max_tokens is not None and self._plan.max_tokens < 0:
            raise InvalidInput(f"max_tokens must be 0 or more, not {self._plan.max_tokens}")
        if self._plan.timeout_s is not None and not self._plan.timeout_s >= 0:
            raise InvalidInput(f"timeout_s must be 0 or more, not {self._plan.timeout_s}")
        self.facts.check_window(self._plan.window, self._plan.sinks)
        speculation = self._plan.speculation
        if speculation is not None and not 1 <= speculation.max_tokens <= MAX_DRAFT_TOKENS:
            raise InvalidInput(f"drafts must be of 1 to {MAX_DRAFT_TOKENS} tokens, not {speculation.max_tokens}")
        if speculation is not None and speculation.kind == "model" and not self.facts.has_draft_model:
            raise Unsupported(
                f"`speculate` is `model`, and {self.facts.label} has no draft model",
                hint="name one in the configuration (`draft_model` of the model), or guess with `lookup`",
            )

    def _take(self, token: int, sample: Sample | RowResult) -> None:
        """The next token of the reply, and what was seen beside it."""
        self.context.process.num_generated += 1
        matcher = self._matcher
        # Within a grammar that may not end here it is a token like any other.
        if token in self._stop_tokens and (matcher is None or matcher.may_end):
            self._end_with("stop")
            return
        if self._reports:
            self._reported.add(sample)
        self._add(token)
        if matcher is not None and not self.is_over:
            self._add_forced(matcher)

    def _add(self, token: int) -> None:
        """One more token of the reply, which may be its last; what is reported of it has been added."""
        matcher = self._matcher
        if matcher is not None and not matcher.take(token):
            raise Internal(f"token {token} is not in the mask of the grammar")
        self.kv.append(token)
        if self._text.push(token):
            self._text.cut_stop(self.num_sent)
            self._keep(self._text.num_tokens)
            self._finish("stop")
        elif matcher is not None and matcher.is_complete:
            self._end_with("stop")
        elif self.kv.num_tokens >= self._end:
            self._end_with(self._end_reason)

    def _add_forced(self, matcher: Matcher) -> None:
        """What the grammar leaves no choice about needs no passes of its own: it runs with the next token."""
        for token in matcher.forced():
            self.context.process.num_generated += 1
            self._reported.add_forced(1)
            self._add(token)
            if self.is_over:
                return

    def _ask_mask(self) -> Mask | None:
        if self._matcher is None:
            return None
        *self._draft_masks, mask = self.facts.masks.ask_along(self._matcher, self._stops, self._drafts)
        return mask

    def refuse(self, error: ErrorInfo) -> None:
        matcher = self._matcher
        if self._drafts:
            # It may lie behind a wrong guess, where the reply never comes to: again without one.
            self._drafts, self._may_guess = [], False
        elif matcher is not None and matcher.is_broken:
            self.fail(matcher.fault.info)
        elif matcher is not None and matcher.may_end and matcher.is_exhausted:
            self._end_with("stop")  # that nothing more can follow shows in the mask at times, not before
        else:
            self.fail(error)

    def steer(self, epoch: int, keep: int, inject: list[int]) -> None:
        """Keep `keep` tokens, force `inject`, and go on as `epoch`; also when the plan had ended meanwhile.

        Without anything to force this is a rewind, and what follows is drawn anew.
        """
        if not self.has_begun:
            assert keep == 0, f"plan {self.op} has not begun; asked to keep {keep}"
            self.epoch, self._early_inject = epoch, inject
            return
        if not 0 <= keep <= self.num_generated:
            raise Internal(f"plan {self.op} has {self.num_generated} tokens; asked to keep {keep}")
        self._text.rewind(keep)
        self._keep(keep)
        self.epoch, self.num_sent, self.num_taken, self.next_chunk_at = epoch, keep, keep, 0.0
        self.is_over, self.ending = False, "none"
        if not inject:
            self.context.random.turn()
        self._force(inject)
        self._go_on()

    def outgrow(self) -> None:
        if self.num_generated:
            self._end_with("pages")
        else:
            super().outgrow()

    def expire(self) -> None:
        if self.has_begun:
            self._end_with("deadline")
        else:
            self._start = self.kv.num_tokens
            self._send_last("deadline", ids=[], text="")

    def stop(self, keep: int) -> None:
        """End by the program's wish: the context keeps `keep` tokens of the reply."""
        if self.has_begun:
            keep = min(keep, self.num_generated)
            self._text.rewind(keep)
            self._keep(keep)
            self.num_sent = keep
        else:
            self._start = self.kv.num_tokens
        self._send_last("stopped", ids=[], text="")

    def keep_after_end(self, keep: int) -> None:
        """A stop, or a rewind after a failure, that crossed the end on its way: there is nothing to answer."""
        if self.has_begun:
            self._keep(min(keep, self.num_generated))

    def fail(self, error: ErrorInfo) -> None:
        """What can be delivered goes out first; the context keeps exactly what the program gets to see."""
        if self.has_begun:
            self.send_chunk(self.next_chunk_at)
            self._keep(self.num_sent)
        self.ending = "failed"
        super().fail(error)

    def _go_on(self) -> None:
        if self._matcher is not None and self._matcher.is_complete:
            self._end_with("stop")
        elif self.kv.num_tokens >= max(self._end, 1):
            self._end_with(self._end_reason)
        else:
            if self.kv.num_tokens and self._matcher is not None:
                self._add_forced(self._matcher)
            if not self.is_over:
                self.require_logits()

    def _keep(self, num_tokens: int) -> None:
        if num_tokens < self.num_generated:
            if self._matcher is not None:
                self._matcher.rewind(self.num_generated - num_tokens)
            self.context.truncate(self._start + num_tokens)
            self.num_unchanged = min(self.num_unchanged, self._start + num_tokens)
            self._reported.keep(num_tokens)

    def _force(self, tokens: list[int]) -> None:
        if not tokens:
            return
        self.facts.check_tokens(tokens)
        self.facts.check_length(self.kv, len(tokens))
        if self._matcher is not None:
            self._matcher.inject(tokens)
        self.kv.extend(tokens)
        self._text.force(tokens)
        self._reported.add_forced(len(tokens))

    def _end_with(self, reason: FinishReason) -> None:
        """Nothing that was held back can change any more."""
        self._text.finish()
        self._finish(reason)

    def _finish(self, reason: FinishReason) -> None:
        start, end = self.num_sent, self.num_generated
        self.num_sent = end
        self.ending = "finished"
        self._send_last(reason, self._reply(start, end), self._text.between(start, end))
