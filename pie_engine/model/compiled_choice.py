"""The compiled choice of tokens, and the room that it works in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pie_engine.model.kernels.choose import choose_kernel
from pie_engine.model.kernels.ranks import NUM_BUCKETS
from pie_engine.model.kernels.support import whole_vectors


class Choice:
    """`sampling.sampler.Choose` over one vocabulary. One thread at a time."""

    def __init__(self, vocab_size: int) -> None:
        room = whole_vectors(vocab_size)
        self._kernel, self._vocab_size = choose_kernel(), vocab_size
        self._room = (
            np.zeros((2, room), np.float32),
            np.zeros((2, room), np.int64),
            np.zeros(NUM_BUCKETS, np.int64),
            np.zeros(NUM_BUCKETS, np.float64),
        )
        self._mask_bytes = room // 8
        self._tokens = np.zeros(0, np.int64)

    def __call__(self, logits: np.ndarray, settings: np.ndarray, masks: Sequence[bytes] = ()) -> list[int]:
        num_rows = len(settings)
        assert logits.shape == (num_rows, self._vocab_size), logits.shape
        assert logits.strides[1] == logits.itemsize, "the numbers of a row lie side by side"
        if len(self._tokens) != num_rows:
            self._tokens = np.zeros(num_rows, np.int64)
        bits, size = 0, self._mask_bytes
        if masks:
            joined = np.frombuffer(b"".join([mask[:size].ljust(size, b"\0") for mask in masks]), np.uint8)
            bits = joined.ctypes.data
        self._kernel(
            logits.ctypes.data, logits.strides[0], self._vocab_size, settings, bits, size, *self._room, self._tokens
        )
        tokens: list[int] = self._tokens.tolist()
        return tokens
