"""The compiled choice of tokens, and the room that it works in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pie_engine.model.kernels.choose import NUM_SETTINGS, choose_kernel
from pie_engine.model.kernels.ranks import NUM_BUCKETS
from pie_engine.model.kernels.support import whole_vectors
from pie_engine.protocol.sampling import GREEDY_SETTINGS, Sampler


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
        self._samplers: list[Sampler] = []
        """Of the last rows: step after step they are mostly the same."""
        self._settings, self._tokens = np.zeros((0, NUM_SETTINGS)), np.zeros(0, np.int64)
        self._is_random = self._has_masks = False

    def __call__(
        self,
        logits: np.ndarray,
        samplers: Sequence[Sampler],
        uniforms: Sequence[float],
        masks: Sequence[bytes | None] = (),
    ) -> list[int]:
        assert logits.shape == (len(samplers), self._vocab_size), logits.shape
        assert logits.strides[1] == logits.itemsize, "the numbers of a row lie side by side"
        if samplers != self._samplers:
            self._set(list(samplers))
        settings, size, bits = self._settings, self._mask_bytes, 0
        if self._is_random:
            settings[:, 4] = uniforms
        some = [mask for mask in masks if mask is not None]
        if some or self._has_masks:
            settings[:, 5] = [mask is not None for mask in masks] if some else 0.0
            self._has_masks = bool(some)
        if some:
            joined = np.frombuffer(b"".join([mask[:size].ljust(size, b"\0") for mask in some]), np.uint8)
            bits = joined.ctypes.data
        self._kernel(
            logits.ctypes.data, logits.strides[0], self._vocab_size, settings, bits, size, *self._room, self._tokens
        )
        tokens: list[int] = self._tokens.tolist()
        return tokens

    def _set(self, samplers: list[Sampler]) -> None:
        self._samplers, num_rows = samplers, len(samplers)
        self._tokens, self._settings = np.zeros(num_rows, np.int64), np.zeros((num_rows, NUM_SETTINGS))
        self._is_random, self._has_masks = not all(sampler.is_greedy for sampler in samplers), False
        self._settings[:, :4] = [sampler.settings or GREEDY_SETTINGS for sampler in samplers]
