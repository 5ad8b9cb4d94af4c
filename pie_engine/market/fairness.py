"""What each process got lately, so that of those that bid the same, the one that got least goes first.

A virtual counter for each process, not for each operation: with a thousand forks a process gets no more than with one
context (Sheng et al., *Fairness in Serving Large Language Models*, OSDI 2024). It decays (Kay and Lauder, *A Fair Share
Scheduler*, CACM 31(1), 1988), so that long ago does not matter. Who comes or comes back starts with what the others
have at least, else leaving and coming back would be an advantage. Only steps in which somebody has to wait count.
"""

from __future__ import annotations

import numpy as np

from pie_engine.market.columns import Bools, Floats, Ints

HALF_LIFE_STEPS = 512
DECODE_COST = 2
"""Of a decoded token beside a prompt's: it reads the weights for itself alone."""
BURST_TOKENS = 4096
"""A prompt that has begun goes on before others of equal bids for so many tokens: prompts that take turns in every step
all end late (Shreedhar and Varghese, *Efficient Fair Queuing Using Deficit Round-Robin*, 1996, call it a quantum)."""
PATIENCE_STEPS = 16
"""Who was away for less was not away: a program that runs pass after pass wants nothing between two of them."""
_GROWTH = 2.0 ** (1 / HALF_LIFE_STEPS)
_LARGEST = 2.0**600


class Service:
    """Of each seat of the ledger: tokens that it got, the last ones counting most.

    Instead of making all of them smaller in every step, what is added grows.
    """

    def __init__(self) -> None:
        self._got = np.zeros(1)
        self._seen = np.zeros(1, np.int64)
        """The step in which it wanted something last."""
        self._step = self._step_before = 0
        """The last two in which somebody was looked at."""
        self.unit = 1.0
        """What a token counts now."""

    def join(self, seat: int) -> None:
        while seat >= len(self._got):
            self._got = np.concatenate((self._got, np.zeros(len(self._got))))
            self._seen = np.concatenate((self._seen, np.zeros(len(self._seen), np.int64)))
        self._got[seat], self._seen[seat] = 0.0, 0

    def look(self, seats: Ints, step: int) -> Floats:
        """What each of those has got that want something in step `step`; they may be there more often than once."""
        seen, got = self._seen[seats], self._got[seats]
        if step != self._step:
            self._step, self._step_before = step, self._step
        long_ago = max(self._step_before - PATIENCE_STEPS, 0)
        if seen[seen.argmin()] <= long_ago:
            are_back = seen <= long_ago
            known, back = got[~are_back], got[are_back]
            least = known[known.argmin()] if len(known) else back[back.argmax()]
            self._got[seats[are_back]] = got[are_back] = np.maximum(back, least)
        self._seen[seats] = step
        return got

    def add(self, seats: Ints, num_tokens: Ints, is_prompt: Bools | None) -> None:
        """They ran so many tokens in a step. `is_prompt`: which of them ran more than one; None: nobody did."""
        costs = DECODE_COST if is_prompt is None else np.where(is_prompt, num_tokens, DECODE_COST)
        np.add.at(self._got, seats, costs * self.unit)
        self.unit *= _GROWTH
        if self.unit > _LARGEST:
            self._got /= self.unit
            self.unit = 1.0
