"""What a plan reports of each of its tokens, where its program has asked for it."""

from __future__ import annotations

from typing import NamedTuple

from pie_engine.driver.base import RowResult, Sample
from pie_engine.protocol.plan import Plan
from pie_engine.protocol.sampling import NO_PROBES, Probes, TopToken

FORCED_LOGPROB = 0.0
"""Of a token that the program or the grammar dictated: it had no alternative."""


class Reported(NamedTuple):
    """One entry for each token, or none at all: as in `to_host.Chunk`."""

    logprobs: list[float]
    top: list[list[TopToken]]
    entropies: list[float]


class TokenProbes:
    """Of the reply's tokens so far."""

    __slots__ = ("_entropies", "_has_entropy", "_has_logprobs", "_has_top", "_logprobs", "_top")

    def __init__(self, plan: Plan) -> None:
        self._has_logprobs, self._has_top, self._has_entropy = plan.logprobs, plan.top_logprobs > 0, plan.entropy
        self._logprobs: list[float] = []
        self._top: list[list[TopToken]] = []
        self._entropies: list[float] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self._has_logprobs or self._has_top or self._has_entropy)

    def add(self, sample: Sample | RowResult) -> None:
        """One more token, as the driver gave it."""
        if self._has_logprobs:
            self._logprobs.append(sample.logprob or 0.0)
        if self._has_top:
            self._top.append(sample.probed.top)
        if self._has_entropy:
            self._entropies.append(sample.probed.entropy or 0.0)

    def add_forced(self, count: int) -> None:
        """Tokens that nobody had to choose."""
        if self._has_logprobs:
            self._logprobs += [FORCED_LOGPROB] * count
        if self._has_top:
            self._top += [[] for _ in range(count)]
        if self._has_entropy:
            self._entropies += [0.0] * count

    def keep(self, count: int) -> None:
        """The first `count` tokens only."""
        del self._logprobs[count:], self._top[count:], self._entropies[count:]

    def between(self, start: int, end: int) -> Reported:
        return Reported(self._logprobs[start:end], self._top[start:end], self._entropies[start:end])


def probes_of(plan: Plan) -> Probes:
    """What each of its passes looks at."""
    if not plan.top_logprobs and not plan.entropy:
        return NO_PROBES
    return Probes(top_k=plan.top_logprobs, entropy=plan.entropy)
