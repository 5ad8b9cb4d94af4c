"""Beam search: each beam is a context of its own, and all of them run in one batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from pie_engine.core.beams import Offer, Reply, Selection, num_offers
from pie_engine.core.family import Family
from pie_engine.core.operation import ModelFacts, Operation
from pie_engine.core.state import Context
from pie_engine.core.text import ReplyText, StopStrings
from pie_engine.driver.base import RowResult
from pie_engine.errors import Cancelled, ErrorInfo, InvalidInput
from pie_engine.grammar.mask import Mask
from pie_engine.grammar.match import Matcher, dead_end
from pie_engine.grammar.vocabulary import Words
from pie_engine.kv.context import KvContext
from pie_engine.protocol.plan import MAX_BEAMS, BeamPlan, FinishReason, Hypothesis, Usage
from pie_engine.protocol.sampling import GREEDY, Probes, TopToken
from pie_engine.protocol.to_core import Search
from pie_engine.protocol.to_host import Searched


@dataclass(slots=True)
class _State:
    """Where a beam stands, besides its tokens."""

    text: ReplyText | None
    """Only where there are stop strings."""
    matcher: Matcher | None
    ids: list[int] = field(default_factory=list)

    def fork(self) -> _State:
        text, matcher = self.text, self.matcher
        return _State(text and text.fork(), matcher and matcher.fork(), self.ids.copy())


class Beam(Operation):
    """Computes what may come after a beam's last token, then waits for the others."""

    __slots__ = ("_search", "state", "top")

    def __init__(self, search: SearchOperation, context: Context, arrival: int, state: _State) -> None:
        super().__init__(search.family.new_id(), context, search.facts, arrival)
        self._search = search
        self.state = state
        self.top: list[TopToken] | None = None
        self._ask(GREEDY, search.probes, has_mask=state.matcher is not None)

    def begin(self) -> None:
        self.has_begun = True

    @property
    def is_parked(self) -> bool:
        return self.top is not None

    def go_on(self, token: int) -> None:
        """It has been chosen to go on with `token`."""
        state = self.state
        state.ids.append(token)
        if state.text is not None:
            state.text.push(token)
        if state.matcher is not None:
            state.matcher.take(token)
        self.kv.append(token)
        self.top = None

    def settle(self, result: RowResult, now: float) -> None:
        self.top = result.probed.top
        self._search.settle_beam()

    def outgrow(self) -> None:
        """The others are as long, and end with it."""
        self.is_over = True
        self._search.outgrow()

    def refuse(self, error: ErrorInfo) -> None:
        """Where its grammar leads nowhere, it ends and the others go on."""
        matcher = self.state.matcher
        if matcher is None:
            self.fail(error)
        else:
            self.top = []
            self._search.settle_beam()

    def fail(self, error: ErrorInfo) -> None:
        """The search has failed with it; nobody else asks for an answer."""
        self.is_over = True
        self._search.fail_with(error)

    def _ask_mask(self) -> Mask | None:
        return self._search.ask_mask(self.state)


class SearchOperation(Operation):
    """Reads the prompt itself; then its beams run. Its context stays as it is."""

    kind = "search"
    __slots__ = (
        "_beams",
        "_end",
        "_end_reason",
        "_free_arrivals",
        "_grammar",
        "_num_beam_tokens",
        "_num_cached",
        "_num_running",
        "_plan",
        "_root",
        "_selection",
        "_start",
        "_stop_tokens",
        "_stops",
        "family",
    )

    def __init__(
        self, message: Search, context: Context, facts: ModelFacts, arrivals: range, family: Family, now: float
    ) -> None:
        """`arrivals`: `num_beams` places in the queue of the core."""
        super().__init__(message.op, context, facts, arrivals[0])
        plan = message.plan
        self.deadline = None if plan.timeout_s is None else now + plan.timeout_s
        self.family = family
        self._plan = plan
        self._free_arrivals = [*reversed(arrivals)]
        self._beams: list[Beam] = []
        self._num_running = self._num_beam_tokens = 0
        self._num_cached = 0
        self._start = 0
        self._grammar = None if plan.grammar is None else facts.grammars.compile(plan.grammar)

    @property
    def is_ready(self) -> bool:
        return self._grammar is None or self._grammar.is_done

    def begin(self) -> None:
        plan, facts = self._plan, self.facts
        _check(plan)
        self.check_context()
        self._start = self.kv.num_tokens
        self._end, self._end_reason = _end_of(plan, self.kv, facts)
        if self._end <= self._start:
            facts.check_length(self.kv, 1)
        eos_ids = () if plan.ignore_eos else facts.tokenizer.eos_ids
        self._stop_tokens = frozenset((*plan.stop_tokens, *eos_ids))
        num_kept = num_offers(plan.num_beams, len(self._stop_tokens))
        probes = Probes(top_k=min(num_kept, facts.vocab_size), of_allowed=plan.grammar is not None)
        if probes.top_k > facts.max_top_k:
            raise InvalidInput(
                f"`num_beams` = {plan.num_beams} needs the {num_kept} likeliest tokens of each beam; "
                f"{facts.label} gives {facts.max_top_k}",
                hint="ask for fewer beams or fewer stop tokens",
            )
        self._ask(GREEDY, probes, has_mask=self._grammar is not None)
        self._selection = Selection(
            plan.num_beams,
            num_kept=num_kept,
            length_penalty=plan.length_penalty,
            early_stopping=plan.early_stopping,
            max_length=self._end - self._start,
        )
        stops = StopStrings(plan.stop)
        text = ReplyText(facts.tokenizer, self.kv.tokens, stops) if stops else None
        self._root = _State(text, None if self._grammar is None else self._grammar.matcher())
        self._stops: Words | None = None
        if self._root.matcher is not None:
            self._stops = self._root.matcher.vocabulary.words_of(self._stop_tokens)
        self.has_begun = True
        self.require_logits()

    @property
    def probes(self) -> Probes:
        """What is asked of the end of each beam."""
        return self._probes

    @property
    def is_parked(self) -> bool:
        """Once the prompt has been read, its beams run."""
        return bool(self._beams)

    def settle(self, result: RowResult, now: float) -> None:
        self._num_cached = max(self.kv.num_computed - self.num_run, 0)
        self._select([self._root], [result.probed.top])

    def settle_beam(self) -> None:
        """One more of the beams has been computed."""
        self._num_running -= 1
        if not self._num_running and not self.is_over:
            tops = [beam.top for beam in self._beams if beam.top is not None]
            self._select([beam.state for beam in self._beams], tops)

    def ask_mask(self, state: _State) -> Mask | None:
        """What may come next there; None: everything."""
        if state.matcher is None or self._stops is None:
            return None
        return self.facts.masks.ask(state.matcher, self._stops)

    def _ask_mask(self) -> Mask | None:
        return self.ask_mask(self._root)

    def _select(self, states: list[_State], tops: list[list[TopToken]]) -> None:
        going = self._selection.advance(tops, lambda offer: self._reply_of(states[offer.beam], offer))
        self._num_beam_tokens += len(going)
        self.context.process.num_generated += len(going)
        if self._selection.is_done:
            self._answer()
        else:
            self._place(going)

    def _reply_of(self, state: _State, offer: Offer) -> Reply | None:
        """What has come to its end with this token."""
        token, text, matcher = offer.token, state.text, state.matcher
        if token in self._stop_tokens and (matcher is None or matcher.may_end):
            return Reply(state.ids.copy(), "stop")
        has_ended = False
        if text is not None:
            has_ended = text.push(token)
            text.rewind(len(state.ids))
        if matcher is not None and matcher.take(token):
            has_ended = has_ended or matcher.is_complete
            matcher.rewind(1)
        ids = [*state.ids, token]
        if has_ended:
            return Reply(ids, "stop")
        return Reply(ids, self._end_reason) if self._start + len(ids) >= self._end else None

    def _place(self, going: list[Offer]) -> None:
        """The last of those that come of one beam takes its place, the others are forks of it."""
        before = self._beams
        last = {offer.beam: place for place, offer in enumerate(going)}
        for index, beam in enumerate(before):
            if index not in last:
                self._drop(beam)
        self._beams = [
            before[offer.beam] if before and last[offer.beam] == place else self._forked(before, offer.beam)
            for place, offer in enumerate(going)
        ]
        self._num_running = len(self._beams)
        for beam, offer in zip(self._beams, going, strict=True):
            beam.go_on(offer.token)
        for beam in self._beams:
            if beam.has_begun:
                self.family.wake(beam)
            else:
                self.family.start(beam)

    def _forked(self, before: list[Beam], index: int) -> Beam:
        context, state = (before[index].context, before[index].state) if before else (self.context, self._root)
        return Beam(self, self.family.fork(context), self._free_arrivals.pop(), state.fork())

    def _drop(self, beam: Beam) -> None:
        self._free_arrivals.append(beam.arrival)
        self.family.drop(beam.context)

    def _drop_beams(self) -> None:
        for beam in self._beams:
            self._drop(beam)
        self._beams = []

    @property
    def usage(self) -> Usage:
        return Usage(self._start, self._num_cached, self._num_beam_tokens)

    def _answer(self, unfinished: FinishReason | None = None) -> None:
        """What was found, and behind it with `unfinished` the beams as they are, which end for that reason."""
        plan = self._plan
        found = [(found.score, found.reply) for found in self._selection.found]
        if unfinished is not None:
            running = zip(self._beams, self._selection.totals, strict=False)
            found += [(self._selection.score(total), Reply(beam.state.ids, unfinished)) for beam, total in running]
        self._drop_beams()
        if not found and unfinished is None:
            self.fail(dead_end(self._selection.length - 1).info)
            self.family.end(self)
            return
        hypotheses = [self._hypothesis(score, reply) for score, reply in found[: plan.num_returned]]
        self.is_over = True
        process = self.context.process
        usage = self.usage
        process.num_prompt += usage.prompt_tokens
        process.num_cached += usage.cached_tokens
        process.host.send(Searched(self.op, hypotheses, usage))
        self.family.end(self)

    def _hypothesis(self, score: float, reply: Reply) -> Hypothesis:
        text = ReplyText(self.facts.tokenizer, self.kv.tokens[: self._start], StopStrings(self._plan.stop))
        for token in reply.ids:
            if text.push(token):
                text.cut_stop(0)
                break
        else:
            text.finish()
        count = text.num_tokens
        return Hypothesis(reply.ids[:count], text.between(0, count), score, reply.finish)

    def expire(self) -> None:
        if not self.has_begun:
            self._start = self.kv.num_tokens
            self.is_over = True
            self.context.process.host.send(Searched(self.op, [], Usage(self._start)))
        else:
            self._answer("deadline")

    def outgrow(self) -> None:
        """A beam has, or the prompt."""
        if not self._beams:
            super().outgrow()
        elif not self.is_over:
            self._answer("pages")

    def stop(self, keep: int) -> None:
        self.fail(Cancelled("the beam search was called off").info)

    def fail_with(self, error: ErrorInfo) -> None:
        """One of its beams has failed."""
        if not self.is_over:
            self.fail(error)
            self.family.end(self)

    def fail(self, error: ErrorInfo) -> None:
        if not self.is_over:
            self._drop_beams()
            super().fail(error)


def _check(plan: BeamPlan) -> None:
    if not 1 <= plan.num_beams <= MAX_BEAMS:
        raise InvalidInput(f"`num_beams` has to be from 1 to {MAX_BEAMS}; got {plan.num_beams}")
    if not 1 <= plan.num_returned <= plan.num_beams:
        raise InvalidInput(
            f"`num_return_sequences` has to be from 1 to `num_beams` = {plan.num_beams}; got {plan.num_returned}"
        )
    if plan.max_tokens is not None and plan.max_tokens < 1:
        raise InvalidInput(f"`max_tokens` of a beam search has to be 1 or more; got {plan.max_tokens}")
    if plan.timeout_s is not None and not plan.timeout_s >= 0:
        raise InvalidInput(f"`timeout` has to be 0 or more; got {plan.timeout_s}")
    if not -100 <= plan.length_penalty <= 100:
        raise InvalidInput(f"`length_penalty` has to be from -100 to 100; got {plan.length_penalty}")


def _end_of(plan: BeamPlan, kv: KvContext, facts: ModelFacts) -> tuple[int, FinishReason]:
    """At how many tokens of the context a beam ends, and why."""
    start = kv.num_tokens
    end = start + facts.max_context_tokens - kv.next_position
    if plan.max_tokens is not None and start + plan.max_tokens <= end:
        return start + plan.max_tokens, "length"
    return end, "context"
