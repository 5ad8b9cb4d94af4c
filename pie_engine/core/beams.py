"""Which beams of a search live on: the selection of Transformers' `generate(num_beams=…)`, over lists.

After `_beam_search` in `transformers/generation/utils.py` (5.x): its scores, its order, its three ways to stop early.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pie_engine.protocol.plan import EarlyStopping, FinishReason
from pie_engine.protocol.sampling import TopToken


class Offer(NamedTuple):
    """Beam `beam` with one more token."""

    beam: int
    token: int
    total: float
    """Sum of the log-probabilities of its tokens."""


class Reply(NamedTuple):
    """What has come to its end."""

    ids: list[int]
    finish: FinishReason


class Found(NamedTuple):
    """A hypothesis."""

    score: float
    reply: Reply


def num_offers(num_beams: int, num_stop_tokens: int) -> int:
    """How many of the likeliest tokens of each beam are looked at: with so many, `num_beams` go on even if every stop
    token is among the best of every beam."""
    return max(2, 1 + num_stop_tokens) * num_beams


class Selection:
    """The beams of one search by their scores; their tokens are somebody else's."""

    def __init__(
        self,
        num_beams: int,
        *,
        num_kept: int,
        length_penalty: float = 1.0,
        early_stopping: EarlyStopping = "no",
        max_length: int = 0,
    ) -> None:
        """`num_kept`: see `num_offers`. `max_length`: most tokens of a hypothesis, which `never` goes by."""
        self._num_beams, self._num_kept = num_beams, num_kept
        self._length_penalty, self._early_stopping, self._max_length = length_penalty, early_stopping, max_length
        self.totals = [0.0]
        """Of the beams that go on."""
        self.length = 0
        """Tokens of each running beam."""
        self.found: list[Found] = []
        """The best so far, best first."""
        self.is_done = False

    def advance(self, tops: Sequence[Sequence[TopToken]], reply_of: Callable[[Offer], Reply | None]) -> list[Offer]:
        """One more token: `tops[beam]` are the likeliest of beam `beam`. Returns the beams that go on, best first.

        `reply_of` says what has come to its end with an offer, and how. Only the first `num_beams` offers can become
        hypotheses; the others are there so that enough go on.
        """
        totals = self.totals
        offers = [
            Offer(beam, entry.token, totals[beam] + entry.logprob)
            for beam, top in enumerate(tops)
            for entry in top
            if entry.logprob > -math.inf
        ]
        best = heapq.nlargest(self._num_kept, offers, key=lambda offer: offer.total)
        self.length += 1
        going: list[Offer] = []
        for place, offer in enumerate(best):
            reply = reply_of(offer)
            if reply is None:
                going.append(offer)
            elif place < self._num_beams:
                self.found.append(Found(self.score(offer.total), reply))
        del going[self._num_beams :]
        self.found.sort(key=lambda found: -found.score)
        del self.found[self._num_beams :]
        self.totals = [offer.total for offer in going]
        self.is_done = not going or (len(self.found) == self._num_beams and not self._may_improve())
        return going

    def score(self, total: float) -> float:
        """Of a hypothesis of the present length."""
        return total / math.pow(self.length, self._length_penalty)

    def _may_improve(self) -> bool:
        if self._early_stopping == "yes":
            return False
        is_patient = self._early_stopping == "never" and self._length_penalty > 0
        length = self._max_length if is_patient else self.length
        return self.totals[0] / math.pow(length, self._length_penalty) > self.found[-1].score
