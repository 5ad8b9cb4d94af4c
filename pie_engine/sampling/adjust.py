"""What changes the logits before anything is chosen, greedy or not: masks, allowed and banned tokens, penalties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pie_engine.sampling.draw import Draw
from pie_engine.sampling.penalties import penalize

_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_LIMITS_OF_BYTE = np.where(_BITS_OF_BYTE, np.float32(np.inf), np.float32(-np.inf))
"""Of the eight tokens of a byte of a mask: looking them up is three times as fast as making them from bits."""


def adjusted(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """A changed copy of `logits` [rows, vocab], one row for each of `draws`."""
    is_limited = any(draw.mask is not None or draw.sampler.allowed_tokens is not None for draw in draws)
    if is_limited:
        limits = _limits(draws, logits)
        own = torch.minimum(logits, limits, out=limits)
    else:
        own = logits.clone()
    for row, draw in enumerate(draws):
        if draw.sampler.banned_tokens:
            own[row, list(draw.sampler.banned_tokens)] = -torch.inf
        if bias := draw.sampler.logit_bias:
            own[row, list(bias)] += torch.tensor(list(bias.values()), device=own.device)
    penalize(own, draws)
    return own


def _limits(draws: Sequence[Draw], logits: Tensor) -> Tensor:
    """+inf where a token may be chosen and -inf where not [rows, vocab]; the minimum with it keeps NaN."""
    vocab = logits.shape[1]
    num_bytes = -(-vocab // 8)
    whole = b"\xff" * num_bytes
    masks = [whole if draw.mask is None else draw.mask[:num_bytes].ljust(num_bytes, b"\0") for draw in draws]
    packed = np.frombuffer(bytearray().join(masks), np.uint8).reshape(len(masks), num_bytes)
    for row, draw in enumerate(draws):
        if draw.sampler.allowed_tokens is not None:
            kept = np.zeros(vocab, np.uint8)
            kept[list(draw.sampler.allowed_tokens)] = 1
            packed[row] &= np.packbits(kept, bitorder="little")
    limits = np.take(_LIMITS_OF_BYTE, packed, axis=0).reshape(len(masks), 8 * num_bytes)[:, :vocab]
    return torch.from_numpy(limits).to(logits)
