"""What changes the logits before anything is chosen, greedy or not: masks, allowed and banned tokens, penalties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pie_engine.sampling.draw import Draw
from pie_engine.sampling.penalties import penalize


def adjusted(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """A changed copy of `logits` [rows, vocab], one row for each of `draws`."""
    is_limited = any(draw.mask is not None or draw.sampler.allowed_tokens is not None for draw in draws)
    own = torch.minimum(logits, _limits(draws, logits)) if is_limited else logits.clone()
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
    packed = np.frombuffer(b"".join(masks), np.uint8).reshape(len(masks), num_bytes)
    bits = np.unpackbits(packed, axis=1, count=vocab, bitorder="little")
    for row, draw in enumerate(draws):
        if draw.sampler.allowed_tokens is not None:
            kept = np.zeros(vocab, np.uint8)
            kept[list(draw.sampler.allowed_tokens)] = 1
            bits[row] &= kept
    return (torch.from_numpy(bits).to(logits) - 0.5) * torch.inf
