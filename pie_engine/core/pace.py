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
"""Tokens that the oldest prompt gets in each step, however long that takes: n tokens run in at most n / 16 steps."""
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

    @property
    def is_free(self) -> bool:
        """Whether steps may take as long as they do."""
        return not self._step_s

    def learn(self, num_decodes: int, parts: Sequence[Part], took_s: float) -> None:
        """A step with so many decodes and these parts of prompts took `took_s`."""
        if not parts:
            _remember(self._decode_s, num_decodes.bit_length(), took_s)
            return
        num_tokens = sum(part.num_tokens for part in parts)
        for_parts_s = took_s - self._decodes_s(num_decodes)
        # What is small beside the decodes, or has but a few tokens, says nothing of what a token costs.
        if num_tokens >= MIN_CHUNK and for_parts_s >= took_s / 4:
            context = sum(part.num_tokens * (part.start + part.num_tokens // 2) for part in parts) // num_tokens
            _remember(self._token_s, _class_of(context), for_parts_s / num_tokens)

    def allowance(self, num_decodes: int) -> Allowance:
        """For the prompts of a step with so many decodes. It is no less than what the decodes take: where both do not
        fit into a step, each of the two runs at half the speed that it would have alone."""
        decodes_s = self._decodes_s(num_decodes)
        left_s = max(self._step_s - decodes_s, decodes_s)
        costs = {each: median_low(seen) for each, seen in self._token_s.items()}
        return Allowance(left_s, costs or {0: left_s / FIRST_CHUNK})

    def _decodes_s(self, num_decodes: int) -> float:
        """Where so many have not been seen alone, what fewer took: rather too little."""
        known = [each for each in self._decode_s if each <= num_decodes.bit_length()]
        return median_low(self._decode_s[max(known)]) if known and num_decodes else 0.0


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
