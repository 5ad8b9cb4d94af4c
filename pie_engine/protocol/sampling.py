"""What a program asks of the sampler; crosses from host to core and from core to driver."""

from __future__ import annotations

import msgspec


class Sampler(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen from the logits.

    `temperature == 0` is greedy and the other fields then do nothing. Otherwise, in this order: temperature,
    top-k (0: off), top-p (1.0: off), then one draw by inverse CDF over the tokens sorted by probability.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0


GREEDY = Sampler()


class TopToken(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a top-k distribution: log-probability of `token` before temperature and filters."""

    token: int
    logprob: float
