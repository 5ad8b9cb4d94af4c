"""The masks of a step, computed while the model runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from pie_engine.grammar.match import Matcher
from pie_engine.grammar.vocabulary import Words

Mask = Callable[[], bytes]
"""Waits for the mask: a bit for each token of the vocabulary, little-endian, set where the token may come next."""
HAND_OVER_FROM_S = 0.001
"""Masks of a step that take less are computed by whoever asks first: most take some microseconds, and waking a thread
takes 0.1 ms, and several where all cores are busy with the model."""
_MAX_THREADS = 8
_WEIGHT = 0.3
"""Of the last step in what the next one is expected to take."""


class _Asked(NamedTuple):
    """The masks `first`, `first + 1`, … of a step: where a matcher stands, and after each of `tokens`."""

    matcher: Matcher
    stops: Words
    tokens: Sequence[int]
    first: int


class Masks:
    """`ask` for the masks of a step, `start`, run the model, then call them; `finish` before the matchers change.

    llguidance lets go of the interpreter lock while it computes one.
    """

    def __init__(self) -> None:
        self._asked: list[_Asked] = []
        self._num_masks = 0
        self._running: list[Future[float]] = []
        self._is_done = False
        self._words = np.zeros((0, 0), np.uint32)
        self._expected_s = 0.0
        """Processor time that the masks of a step take."""

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="masks")

    def ask(self, matcher: Matcher, stops: Words) -> Mask:
        """What may come next: what the grammar has there, and where it may end `stops` (`Vocabulary.words_of`)."""
        return self.ask_along(matcher, stops, ())[0]

    def ask_along(self, matcher: Matcher, stops: Words, tokens: Sequence[int]) -> list[Mask]:
        """The same now, and after each of `tokens`, which all fit."""
        first = self._num_masks
        self._asked.append(_Asked(matcher, stops, tokens, first))
        self._num_masks += 1 + len(tokens)
        num_bytes = matcher.vocabulary.num_mask_bytes
        return [partial(self._mask, index, num_bytes) for index in range(first, self._num_masks)]

    def start(self) -> None:
        """The model runs from now on: compute what was asked for beside it, if that pays."""
        if not self._asked:
            return
        if len(self._words) < self._num_masks:
            self._words = np.zeros((self._num_masks, self._asked[0].matcher.vocabulary.num_words), np.uint32)
        if self._expected_s >= HAND_OVER_FROM_S:
            num_parts = min(len(self._asked), self._threads._max_workers)
            self._running = [self._threads.submit(self._compute, part, num_parts) for part in range(num_parts)]

    def finish(self) -> None:
        """Wait for what is running, wanted or not, and forget what was asked for."""
        self._wait()
        self._asked, self._num_masks, self._is_done = [], 0, False

    def _mask(self, index: int, num_bytes: int) -> bytes:
        self._wait()
        if not self._is_done:
            self._expect(self._compute(0, 1))
        mask: bytes = self._words[index].tobytes()
        return mask[:num_bytes]

    def _wait(self) -> None:
        if self._running:
            self._expect(sum(part.result() for part in self._running))
            self._running = []

    def _expect(self, took_s: float) -> None:
        self._is_done = True
        self._expected_s += _WEIGHT * (took_s - self._expected_s)

    def _compute(self, first: int, step: int) -> float:
        """Every `step`-th of what was asked from `first` on; returns the processor time."""
        started = time.thread_time()
        for asked in self._asked[first::step]:
            for index, token in enumerate(asked.tokens, asked.first):
                self._write(index, asked)
                asked.matcher.take(token)
            self._write(asked.first + len(asked.tokens), asked)
            asked.matcher.rewind(len(asked.tokens))
        return time.thread_time() - started

    def _write(self, index: int, asked: _Asked) -> None:
        """The mask of where the matcher stands."""
        words, matcher = self._words, asked.matcher
        num_bytes, end_id = words.strides[0], matcher.vocabulary.end_id
        matcher.write_mask(words.ctypes.data + index * num_bytes, num_bytes)
        if matcher.may_end and not matcher.is_broken:
            words[index] |= asked.stops
        words[index, end_id >> 5] &= ~np.uint32(1 << (end_id & 31))
