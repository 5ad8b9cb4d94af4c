"""Drafts: tokens that a plan guesses and that the model reads in one row with the next token, to check them.

Every position of a reply has a random number of its own, and a token is a function of the logits and that number
(`sampling.random`). So the token that the model gives after a draft is the very token that it would have given without
drafts, as long as all drafts before it were right: the reply is the same, token by token, whatever is guessed. That is
more than the rejection sampling of Leviathan et al. 2023 and Chen et al. 2023 promises, which keeps the distribution.

What is refused has been written into pages of the context behind its computed end, and is written over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pie_engine.grammar.mask import Mask, Masks
from pie_engine.grammar.match import Matcher
from pie_engine.grammar.vocabulary import Words
from pie_engine.kv.context import KvContext
from pie_engine.kv.pool import PagePool
from pie_engine.protocol.plan import MAX_DRAFT_TOKENS
from pie_engine.protocol.sampling import Sampler

_NGRAMS = (3, 2)
"""Lengths of the ends that prompt lookup searches for, the longer one first."""
_FIRST_LENGTH = 4
_LOW_RATE = 0.2
_RATE_WEIGHT = 0.25
_FIRST_REST = 8
_LONGEST_REST = 128


def can_draft(sampler: Sampler) -> bool:
    """Whether a token under `sampler` depends on the logits and one random number of its position alone.

    Penalties, DRY and mirostat go by the tokens before it, not decided yet in a row of drafts; XTC draws twice.
    """
    return not (sampler.reads_history or sampler.mirostat_tau or sampler.xtc_probability)


def num_draftable(kv: KvContext, pool: PagePool, num_growing: int) -> int:
    """How many tokens behind the end of `kv` have room without anybody losing a page by it.

    A page is left for each of the `num_growing` contexts that will want one.
    """
    num_pages = max(pool.num_free - num_growing, 0)
    return max(kv.writable_end + num_pages * pool.page_size - kv.num_tokens, 0)


class DraftLength:
    """How many tokens to guess: as many as are likely to be right, and none for a while when few are.

    Twice as many after all were right, one more than were right otherwise. When less than a fifth of late has been
    right, the next guess waits: 8 tokens, then twice as long each time up to 128, until one is right again.
    """

    __slots__ = ("_is_resting_until", "_length", "_longest", "_rest", "rate")

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._length = min(_FIRST_LENGTH, longest)
        self.rate = 0.5
        """Of what was guessed of late, how much was right."""
        self._rest = _FIRST_REST
        self._is_resting_until = 0

    def at(self, num_generated: int) -> int:
        """Most tokens to guess after `num_generated` tokens of the reply."""
        return 0 if num_generated < self._is_resting_until else self._length

    def learn(self, num_drafted: int, num_accepted: int, num_generated: int) -> None:
        """What came of the last guess."""
        self.rate += _RATE_WEIGHT * (num_accepted / num_drafted - self.rate)
        if num_accepted == num_drafted:
            self._length = min(max(2 * num_drafted, self._length), self._longest)
        else:
            self._length = min(num_accepted + 1, self._longest)
        if num_accepted:
            self._rest = _FIRST_REST
        elif self.rate < _LOW_RATE:
            self._is_resting_until = num_generated + self._rest
            self._rest = min(2 * self._rest, _LONGEST_REST)


class PromptLookup:
    """Guesses that what followed the last tokens the time before follows them again.

    Prompt lookup decoding (Saxena 2023). The index holds the last place of each run of 3 and of 2 tokens; places that a
    rewind has taken back are seen to be wrong when they are looked at.
    """

    __slots__ = ("_last", "_num_indexed")

    def __init__(self) -> None:
        self._last: dict[tuple[int, ...], int] = {}
        """Run of tokens → where it ends."""
        self._num_indexed = 0

    def guess(self, tokens: Sequence[int], count: int) -> list[int]:
        """At most `count` tokens that may follow `tokens`."""
        self._index(tokens)
        for length in _NGRAMS:
            end = self._last.get(tuple(tokens[-length:])) if len(tokens) >= length else None
            if end is not None and end < len(tokens) and list(tokens[end - length : end]) == list(tokens[-length:]):
                return self._followers(tokens, end, count)
        return []

    def _followers(self, tokens: Sequence[int], end: int, count: int) -> list[int]:
        """What follows place `end`; where that runs into the end of the text, it goes on with itself."""
        period = list(tokens[end : end + count])
        return (period * (count // len(period) + 1))[:count]

    def _index(self, tokens: Sequence[int]) -> None:
        """All runs but the last, which would find itself."""
        first = max(min(self._num_indexed, len(tokens) - 1), min(_NGRAMS))
        start = max(first - max(_NGRAMS), 0)
        recent = tokens[start:]
        for end in range(first, len(tokens)):
            for length in _NGRAMS:
                if end >= length:
                    self._last[tuple(recent[end - start - length : end - start])] = end
        self._num_indexed = len(tokens)


class Guide:
    """Where a guess that follows a grammar stands in it."""

    __slots__ = ("_matcher", "_stop_tokens", "_stops")

    def __init__(self, matcher: Matcher, stops: Words, stop_tokens: frozenset[int]) -> None:
        """`matcher` is its own."""
        self._matcher, self._stops, self._stop_tokens = matcher, stops, stop_tokens

    def ask(self, masks: Masks) -> Mask:
        """What may come next."""
        return masks.ask(self._matcher, self._stops)

    def take(self, token: int) -> bool:
        """Whether anything is to be guessed behind `token`: not where the reply may end with it, nor where the grammar
        dictates what comes."""
        matcher = self._matcher
        if (token in self._stop_tokens and matcher.may_end) or not matcher.take(token):
            return False
        return not (matcher.is_complete or matcher.forced())


class Drafter:
    """The guesses of one plan: those that its program has handed in first, then those of the lookup or draft model."""

    __slots__ = ("_given", "_given_at", "_length", "_lookup", "_proposal", "asks_model", "num_accepted", "num_drafted")

    def __init__(self, kind: Literal["lookup", "model"] | None, *, longest: int) -> None:
        """`kind`: who guesses besides the program; None: nobody."""
        self._lookup = PromptLookup() if kind == "lookup" else None
        self.asks_model = kind == "model"
        self._proposal: list[int] = []
        self._length = DraftLength(longest)
        self._given: list[int] = []
        self._given_at = 0
        self.num_drafted = 0
        self.num_accepted = 0

    def give(self, index: int, tokens: Sequence[int]) -> None:
        """The program expects `tokens` from token `index` of the reply on; this replaces what it said before."""
        self._given_at, self._given = index, list(tokens)

    def num_wanted(self, tokens: Sequence[int], start: int) -> int:
        """How many tokens the draft model should guess behind `tokens`."""
        num_generated = len(tokens) - start
        if not self.asks_model or self._given_after(tokens, start, num_generated):
            return 0
        return self._length.at(num_generated)

    @property
    def rate(self) -> float:
        """The share of its guesses that was right of late."""
        return self._length.rate

    def propose(self, guess: list[int]) -> None:
        """What the draft model says."""
        self._proposal = guess

    def guess(self, tokens: Sequence[int], start: int, most: int) -> list[int]:
        """At most `most` tokens that may follow `tokens`, whose reply begins at `start`."""
        proposal, self._proposal = self._proposal, []
        num_generated = len(tokens) - start
        given = self._given_after(tokens, start, num_generated)
        if given:
            return given[: min(most, MAX_DRAFT_TOKENS)]
        if self.asks_model:
            return proposal[:most]
        most = min(most, self._length.at(num_generated))
        return self._lookup.guess(tokens, most) if self._lookup is not None and most > 0 else []

    def learn(self, num_drafted: int, num_accepted: int, num_generated: int) -> None:
        """`num_accepted` of the last guess were right."""
        self.num_drafted += num_drafted
        self.num_accepted += num_accepted
        if not self._given:
            self._length.learn(num_drafted, num_accepted, num_generated)

    def _given_after(self, tokens: Sequence[int], start: int, num_generated: int) -> list[int]:
        """What is left of the program's guess, if it has been right so far."""
        if self._given:
            num_past = num_generated - self._given_at
            if not 0 <= num_past < len(self._given) or tokens[start + self._given_at :] != self._given[:num_past]:
                self._given = []
        return self._given[num_generated - self._given_at :] if self._given else []
