"""How much of a prompt fits into a step that others decode in, so that none of them waits long for its next token.

The chunk of a step is chosen so that the step takes a given time, as in Sarathi-Serve (Agrawal et al. 2024), which
profiles the model beforehand; here the costs come from the steps that have run. Medians of the last few are robust: one
step that something else held up changes nothing, and what has really changed is known after three.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median_low
from typing import NamedTuple

MIN_CHUNK = 16
"""Tokens that the oldest prompt gets in each step that it is in, however long that takes."""
PROMPT_FACTOR = 3
"""A prompt gets at least so many times what the decodes of its step take, however long that is."""
NUM_LOOKS = 2
"""Steps without prompts that have to be seen: two, since one of them may have been held up."""
LOOK_EVERY = 32
"""After so many steps with prompts there is one without: the decodes may have become slower or faster."""
FIRST_CHUNK = 64
"""Tokens of the first chunk beside decodes, when nothing is known of what one costs."""
_NUM_REMEMBERED = 5
_CLASS_WIDTH = 256
"""Tokens of context in the first class; each of the others is twice as wide as the one before it."""


class Part(NamedTuple):
    """A prompt's part in a step."""

    start: int
    """Tokens of its context before it."""
    num_tokens: int


class Pace:
    """What steps cost on this machine, in seconds; no clock in here."""

    def __init__(self, step_s: float) -> None:
        """`step_s`: how long a step may take for the sake of prompts. 0: as long as it does."""
        self._step_s = step_s
        self._decode_s: dict[int, deque[float]] = {}
        """Of steps without prompts, by the class of how many decoded."""
        self._token_s: dict[int, deque[float]] = {}
        """For one token of a prompt, by the class of the context before it, which attention reads."""
        self._num_mixed = 0
        """Steps since the last one without prompts."""

    @property
    def is_free(self) -> bool:
        """Whether steps may take as long as they do."""
        return not self._step_s

    def learn(self, num_decodes: int, parts: Sequence[Part], took_s: float) -> None:
        """A step with so many decodes and these parts of prompts took `took_s`."""
        if not parts:
            self._num_mixed = 0
            _remember(self._decode_s, num_decodes.bit_length(), took_s)
            return
        self._num_mixed += 1
        num_tokens = sum(part.num_tokens for part in parts)
        # A few tokens say nothing of what one costs.
        if num_tokens >= MIN_CHUNK:
            context = sum(part.num_tokens * (part.start + part.num_tokens // 2) for part in parts) // num_tokens
            # A quarter, where the decodes seem to have taken all of it: they were measured in slower times.
            for_parts_s = max(took_s - self.decodes_s(num_decodes), took_s / 4)
            _remember(self._token_s, _class_of(context), for_parts_s / num_tokens)

    def allowance(self, num_decodes: int, spent_s: float = 0.0) -> Allowance | None:
        """For the prompts of a step with so many decodes; None: they sit it out, to show what the decodes take.

        It is at least three times that: where both do not fit into a step, prompts run at three quarters of their own
        speed, and decodes at one quarter. `spent_s` of the step have gone by already.
        """
        num_seen = len(self._decode_s.get(num_decodes.bit_length(), ()))
        if num_decodes and (num_seen < NUM_LOOKS or self._num_mixed >= LOOK_EVERY):
            return None
        decodes_s = self.decodes_s(num_decodes)
        return self.within(max(self._step_s - decodes_s - spent_s, PROMPT_FACTOR * decodes_s))

    def within(self, left_s: float) -> Allowance:
        """For prompts that may take so long."""
        costs = {each: median_low(seen) for each, seen in self._token_s.items()}
        return Allowance(left_s, costs or {0: left_s / FIRST_CHUNK})

    def decodes_s(self, num_decodes: int) -> float:
        """What so many take; 0: that is not known."""
        seen = self._decode_s.get(num_decodes.bit_length()) if num_decodes else None
        return median_low(seen) if seen else 0.0


class Allowance:
    """The time of one step that is for prompts."""

    def __init__(self, left_s: float, costs: dict[int, float]) -> None:
        self._left_s = left_s
        self._costs = costs
        self._has_begun = False

    def take(self, start: int, most: int) -> int:
        """How many of `most` tokens behind a context of `start` still fit; they count as taken."""
        least = 0 if self._has_begun else min(most, MIN_CHUNK)
        self._has_begun = True
        num_tokens = max(self._num_fitting(start, most), least)
        if num_tokens < most:
            self._left_s = 0.0
        return num_tokens

    def _num_fitting(self, start: int, most: int) -> int:
        taken = 0
        while taken < most:
            here = _class_of(start + taken)
            part, cost_s = min(most - taken, _end_of(here) - start - taken), self._cost_of(here)
            if part * cost_s > self._left_s:
                return taken + int(self._left_s / cost_s)
            self._left_s -= part * cost_s
            taken += part
        return taken

    def _cost_of(self, context_class: int) -> float:
        """Of the nearest class that is known: the next chunk tells what it really is."""
        return self._costs[min(self._costs, key=lambda each: (abs(each - context_class), each))]


def _remember(seen: dict[int, deque[float]], key: int, value: float) -> None:
    seen.setdefault(key, deque(maxlen=_NUM_REMEMBERED)).append(value)


def _class_of(context: int) -> int:
    return (context // _CLASS_WIDTH + 1).bit_length() - 1


def _end_of(context_class: int) -> int:
    """The first length of context that is in the next class."""
    return _CLASS_WIDTH * ((2 << context_class) - 1)
