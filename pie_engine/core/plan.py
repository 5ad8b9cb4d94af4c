"""`generate`: a plan runs ahead of its program, token after token, and can be steered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pie_engine.core.drafting import Drafter, Guide, can_draft
from pie_engine.core.lineage import RandomStream
from pie_engine.core.operation import ModelFacts, Operation
from pie_engine.core.probes import NOTHING_REPORTED, TokenProbes, probes_of
from pie_engine.core.state import Context
from pie_engine.core.text import ReplyText, StopStrings
from pie_engine.driver.base import Row, RowResult, Sample
from pie_engine.errors import ErrorInfo, Internal, InvalidInput, Unsupported
from pie_engine.grammar.mask import Mask
from pie_engine.grammar.match import Matcher
from pie_engine.protocol.plan import MAX_DRAFT_TOKENS, RUN_AHEAD_TOKENS, FinishReason, Plan, Usage
from pie_engine.protocol.sampling import Sampler, check_sampler
from pie_engine.protocol.to_host import Chunk

Ending = Literal["none", "finished", "failed"]
"""How a plan came to its end by itself. Until its program has seen that, it may still steer or stop it."""


class PlanOperation(Operation):
    """Tokens of the reply are at the end of the context, delivered or not. Counts are of the reply's tokens."""

    __slots__ = (
        "_can_draft",
        "_chunk_s",
        "_draft_masks",
        "_drafter",
        "_drafts",
        "_early_inject",
        "_end",
        "_end_reason",
        "_grammar",
        "_matcher",
        "_may_guess",
        "_num_cached",
        "_plan",
        "_reported",
        "_reports",
        "_start",
        "_stop_tokens",
        "_stops",
        "_text",
        "ending",
        "epoch",
        "next_chunk_at",
        "num_sent",
        "num_taken",
        "num_unchanged",
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
        super().__init__(op, context, facts, arrival)
        self.deadline = None if plan.timeout_s is None else now + plan.timeout_s
        self._ask(plan.sampler, probes_of(plan), plan.logprobs)
        self._plan = plan
        self._chunk_s = plan.chunk_ms / 1000
        self.epoch = 0
        self.num_sent = 0
        self.num_taken = 0
        self.next_chunk_at = 0.0
        """When the next chunk may go; the first one at once."""
        self._reported = TokenProbes(plan)
        self._reports = not self._reported.is_empty
        self._start = self._end = 0
        self._end_reason: FinishReason = "length"
        self._num_cached: int | None = None
        """Tokens of the prompt that did not run for this plan; known with its first token."""
        self._early_inject: list[int] | None = None
        """Steered before it began: what is forced then."""
        self._can_draft = can_draft(plan.sampler)
        self._drafter: Drafter | None = None
        if plan.speculation is not None and self._can_draft:
            self._drafter = Drafter(plan.speculation.kind, longest=plan.speculation.max_tokens)
            self.guesses = True
        self.num_unchanged = 0
        self._drafts: list[int] = []
        """Of the row that runs."""
        self._draft_masks: list[Mask] = []
        self._may_guess = True
        self._grammar = None if plan.grammar is None else facts.grammars.compile(plan.grammar)
        self._matcher: Matcher | None = None
        """Has taken the tokens of the reply."""
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

    @property
    def num_generated(self) -> int:
        return self.kv.num_tokens - self._start

    @property
    def is_parked(self) -> bool:
        """Held-back text that fills the window must not park the plan: nobody could ever take it."""
        num_undelivered = self.kv.num_tokens - self._start - self.num_taken
        return num_undelivered >= RUN_AHEAD_TOKENS and self._text.num_ready > self.num_taken

    @property
    def holds_chunk(self) -> bool:
        """Whether something waits for its time to be sent."""
        return self._text.num_ready > self.num_sent

    def give_draft(self, epoch: int, index: int, tokens: list[int]) -> None:
        """The program expects `tokens` from token `index` of the reply on."""
        if epoch == self.epoch and self._can_draft:
            if self._drafter is None:
                self._drafter = Drafter(None, longest=0)
                self.guesses = True
            self._drafter.give(index, tokens)

    @property
    def is_writing(self) -> bool:
        return self.kv.num_computed >= self._start - 1

    # What the draft model knows of it (`draft_model.Writer`).

    @property
    def user(self) -> str:
        return self.context.process.user

    @property
    def tokens(self) -> Sequence[int]:
        return self.kv.tokens

    @property
    def sampler(self) -> Sampler:
        return self._plan.sampler

    def draw(self, position: int) -> float:
        return self.context.random.draw(position)

    def guide(self) -> Guide | None:
        matcher = self._matcher
        if matcher is None or self._stops is None:
            return None
        return Guide(matcher.fork(), self._stops, self._stop_tokens)

    @property
    def num_wanted(self) -> int:
        """Tokens that the draft model should guess for the next row."""
        drafter = self._drafter
        if drafter is None or not drafter.asks_model or not self._may_guess or not self.is_writing:
            return 0
        return min(self._num_guessable, drafter.num_wanted(self.kv.tokens, self._start))

    def propose(self, guess: list[int]) -> None:
        assert self._drafter is not None
        self._drafter.propose(guess)
        self.num_unchanged = self.kv.num_tokens

    @property
    def _num_guessable(self) -> int:
        """One more token than are guessed comes of a row."""
        num_ahead = RUN_AHEAD_TOKENS + self._start + self.num_taken
        return min(self._end, num_ahead) - self.kv.num_tokens - 1

    def draft(self, most: int) -> int:
        if self._drafter is not None and self._may_guess:
            tokens = self.kv.tokens
            most = min(most, self._num_guessable)
            guess = self._drafter.guess(tokens, self._start, most) if most > 0 else []
            self._drafts = guess if self._matcher is None else self._fitting(guess, self._matcher)
        return len(self._drafts)

    def _fitting(self, guess: list[int], matcher: Matcher) -> list[int]:
        """The beginning of a guess that the grammar takes and after which a token is to be sampled.

        Not where the reply would be complete, nor past a token behind which the grammar dictates what comes.
        """
        count = 0
        for token in guess:
            if (token in self._stop_tokens and matcher.may_end) or not matcher.take(token):
                break
            count += 1
            if matcher.is_complete:
                matcher.rewind(1)
                count -= 1
                break
            if matcher.forced():
                break
        matcher.rewind(count)
        return guess[:count]

    def row(self, num_tokens: int) -> Row:
        row = super().row(num_tokens)
        if self._drafts:
            first = row.end
            row.tokens = [*row.tokens, *self._drafts]
            row.draft_masks = self._draft_masks
            if not self._plan.sampler.is_greedy:
                draw = self.context.random.draw
                *row.draft_uniforms, row.uniform = [draw(position) for position in range(first, row.end + 1)]
            else:
                row.draft_uniforms = [0.0] * len(self._drafts)
        return row

    def settle(self, result: RowResult, now: float) -> None:
        assert result.token is not None, "the driver gave no token"
        self._may_guess = True
        if self._num_cached is None:
            self._num_cached = self._count_cached()
        if not self._drafts:
            self._take(result.token, result)
            return
        self._take_checked([*result.before_drafts, Sample(result.token, result.logprob, result.probed)])

    def _take_checked(self, samples: list[Sample]) -> None:
        """Take what was sampled, up to and with the first token that is not the one guessed in its place."""
        drafts, self._drafts = self._drafts, []
        wrong = (at for at, draft in enumerate(drafts) if samples[at].token != draft)
        num_right = next(wrong, len(drafts))
        self._count_drafts(len(drafts), num_right)
        for sample in samples[:num_right]:
            self._take(sample.token, sample)
            if self.is_over:
                return
            self.kv.advance(self.kv.num_computed + 1)
        # Behind the last guess the grammar may have dictated something.
        if not self.kv.num_uncomputed:
            self._take(samples[num_right].token, samples[num_right])

    def _count_drafts(self, num_drafted: int, num_right: int) -> None:
        assert self._drafter is not None
        self._drafter.learn(num_drafted, num_right, self.num_generated + num_right)
        self.context.process.num_drafted += num_drafted
        self.context.process.num_accepted += num_right

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

    def send_chunk(self, now: float) -> None:
        """Send what may be delivered."""
        self.next_chunk_at = now + self._chunk_s
        start, end = self.num_sent, self._text.num_ready
        self.num_sent = end
        reported = self._reported.between(start, end) if self._reports else NOTHING_REPORTED
        so_far = self._usage() if start == 0 or self._drafter is not None else None
        ids, text = self._reply(start, end), self._text.between(start, end)
        self.context.process.host.send(Chunk(self.op, self.epoch, ids, text, start, *reported, so_far=so_far))

    def deliver(self, epoch: int, num_tokens: int) -> None:
        """The program has taken `num_tokens` tokens of the reply in all."""
        if epoch == self.epoch:
            self.num_taken = max(self.num_taken, min(num_tokens, self.num_sent))

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
            if self.holds_chunk:
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

    def _send_last(self, reason: FinishReason, ids: list[int], text: str) -> None:
        self.is_over = True
        index = self.num_sent - len(ids)
        usage, process = self._usage(), self.context.process
        process.num_prompt += usage.prompt_tokens
        process.num_cached += usage.cached_tokens
        reported = self._reported.between(index, self.num_sent)
        chunk = Chunk(self.op, self.epoch, ids, text, index, *reported, reason, usage)
        self.context.process.host.send(chunk)

    def _usage(self) -> Usage:
        if not self.has_begun:
            return Usage(self._start)
        num_cached = self._count_cached() if self._num_cached is None else self._num_cached
        drafter = self._drafter
        num_drafted, num_accepted = (drafter.num_drafted, drafter.num_accepted) if drafter is not None else (0, 0)
        return Usage(self._start, num_cached, self.num_generated, num_drafted, num_accepted)

    def _count_cached(self) -> int:
        """What did not run lies before what did. A prompt that was put back has run twice."""
        return min(self._start, max(self.kv.num_computed - self.num_run, 0))

    def _reply(self, start: int, end: int) -> list[int]:
        return list(self.kv.tokens.part(self._start + start, self._start + end))
