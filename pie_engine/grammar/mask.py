"""The masks of a step, computed while the model runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
from llguidance import LLExecutor

from pie_engine.grammar.match import Matcher
from pie_engine.grammar.vocabulary import Words

Mask = Callable[[], bytes]
"""Waits for the mask: a bit for each token of the vocabulary, little-endian, set where the token may come next."""
Asked = tuple[Matcher, Words]


class Masks:
    """`ask` for the masks of a step, `start`, run the model, then call them; `finish` before the matchers change.

    One thread hands all of a step to llguidance, which computes them beside the interpreter, in parallel.
    """

    def __init__(self) -> None:
        self._asked: list[Asked] = []
        self._running: Future[None] | None = None
        self._words = np.zeros((0, 0), np.uint32)

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="masks")

    @cached_property
    def _executor(self) -> LLExecutor:
        return LLExecutor()

    def ask(self, matcher: Matcher, stops: Words) -> Mask:
        """What may come next: what the grammar has there, and where it may end `stops` (`Vocabulary.words_of`)."""
        index = len(self._asked)
        self._asked.append((matcher, stops))
        num_bytes = matcher.vocabulary.num_mask_bytes
        return lambda: self._mask(index, num_bytes)

    def start(self) -> None:
        """Compute what was asked for."""
        if self._asked:
            asked, self._asked = self._asked, []
            self._running = self._thread.submit(self._compute, asked)

    def finish(self) -> None:
        """Wait for what is running, wanted or not."""
        if self._running is not None:
            self._running.result()
            self._running = None

    def _compute(self, asked: list[Asked]) -> None:
        vocabulary = asked[0][0].vocabulary
        if len(self._words) < len(asked):
            self._words = np.zeros((len(asked), vocabulary.num_words), np.uint32)
        words = self._words
        pairs = [(matcher.inner, index) for index, (matcher, _) in enumerate(asked)]
        self._executor.unsafe_compute_mask_ptr(pairs, words.ctypes.data, words.shape[1] * 4, len(words))
        words[:, vocabulary.end_id >> 5] &= ~np.uint32(1 << (vocabulary.end_id & 31))
        for index, (matcher, stops) in enumerate(asked):
            if matcher.may_end and not matcher.is_broken:
                words[index] |= stops

    def _mask(self, index: int, num_bytes: int) -> bytes:
        assert self._running is not None, "start comes first"
        self._running.result()
        mask: bytes = self._words[index].tobytes()
        return mask[:num_bytes]
