"""Guesses of a plan: tokens that run ahead of it, and are kept as far as they are what it would have drawn."""

from __future__ import annotations

from collections.abc import Sequence

from pie_engine.core.delivery import Delivery
from pie_engine.core.drafting import Drafter, Guide, can_draft
from pie_engine.core.operation import ModelFacts
from pie_engine.core.state import Context
from pie_engine.driver.base import Row, RowResult, Sample
from pie_engine.grammar.mask import Mask
from pie_engine.grammar.match import Matcher
from pie_engine.grammar.vocabulary import Words
from pie_engine.protocol.plan import RUN_AHEAD_TOKENS, Plan
from pie_engine.protocol.sampling import Sampler


class Guessing(Delivery):
    """A reply of which several tokens may come of one row."""

    __slots__ = (
        "_can_draft",
        "_draft_masks",
        "_drafter",
        "_drafts",
        "_end",
        "_first_at",
        "_matcher",
        "_may_guess",
        "_stop_tokens",
        "_stops",
        "arrived_at",
        "num_unchanged",
    )

    def __init__(self, op: int, plan: Plan, context: Context, facts: ModelFacts, arrival: int) -> None:
        super().__init__(op, plan, context, facts, arrival)
        self._end = 0
        """How many tokens the context may have."""
        self._stop_tokens: frozenset[int] = frozenset()
        self._matcher: Matcher | None = None
        """Has taken the tokens of the reply."""
        self._stops: Words
        """The stop tokens, for its masks. Set with the matcher."""
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
        self.arrived_at = self._first_at = 0.0
        """When it came to the core, and when its first token was there."""

    def _take(self, token: int, sample: Sample | RowResult) -> None:
        """The next token of the reply, and what was seen beside it."""
        raise NotImplementedError

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
        if matcher is None:
            return None
        return Guide(matcher.fork(), self._stops, self._stop_tokens)

    @property
    def num_wanted(self) -> int:
        """Tokens that the draft model should guess for the next row."""
        drafter = self._drafter
        if drafter is None or not drafter.asks_model or not self._may_guess or not self.is_writing:
            return 0
        return min(self._num_guessable, drafter.num_wanted(self.kv.tokens, self._start))

    @property
    def asks_model(self) -> bool:
        """Whether the draft model is to guess for it, now or at another time."""
        return self._drafter is not None and self._drafter.asks_model

    @property
    def guess_rate(self) -> float:
        """The share of its guesses that was right of late."""
        return 0.0 if self._drafter is None else self._drafter.rate

    def propose(self, guess: list[int]) -> None:
        assert self._drafter is not None
        self._drafter.propose(guess)
        self.num_unchanged = self.kv.num_tokens

    # Rows with guesses, and what came of them.

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

    def add_drafts(self, row: Row) -> None:
        if not self._drafts:
            return
        first = row.end
        row.tokens = [*row.tokens, *self._drafts]
        row.draft_masks = self._draft_masks
        if self.is_random:
            draw = self.context.random.draw
            *row.draft_uniforms, row.uniform = [draw(position) for position in range(first, row.end + 1)]
        else:
            row.draft_uniforms = [0.0] * len(self._drafts)

    def settle(self, result: RowResult, now: float) -> None:
        assert result.token is not None, "the driver gave no token"
        self._may_guess = True
        if self._num_cached is None:
            self._num_cached, self._first_at = self._count_cached(), now
            self.facts.latencies.ttft.add(now - self.arrived_at)
        if self._drafts:
            self._take_checked([*result.before_drafts, Sample(result.token, result.logprob, result.probed)])
        else:
            self._take(result.token, result)
        if self.is_over and (num_more := self.num_generated - 1) > 0:
            self.facts.latencies.tpot.add((now - self._first_at) / num_more)

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

    def _count_guesses(self) -> tuple[int, int]:
        drafter = self._drafter
        return (0, 0) if drafter is None else (drafter.num_drafted, drafter.num_accepted)
