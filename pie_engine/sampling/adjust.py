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


@torch.inference_mode()
def adjusted(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """A changed copy of `logits` [rows, vocab], one row for each of `draws`."""
    is_limited = any(draw.mask is not None or draw.sampler.allowed_tokens is not None for draw in draws)
    if is_limited:
        bounds = limits([_mask_of(draw, logits.shape[1]) for draw in draws], logits.shape[1]).to(logits)
        own = torch.minimum(logits, bounds, out=bounds)
    else:
        own = logits.clone()
    for row, draw in enumerate(draws):
        if draw.sampler.banned_tokens:
            own[row, list(draw.sampler.banned_tokens)] = -torch.inf
        if bias := draw.sampler.logit_bias:
            own[row, list(bias)] += torch.tensor(list(bias.values()), device=own.device)
    penalize(own, draws)
    return own


def limits(masks: Sequence[bytes | None], vocab: int) -> Tensor:
    """+inf where a token may be chosen and -inf where not [masks, vocab]; the minimum with it keeps NaN."""
    num_bytes = -(-vocab // 8)
    whole = b"\xff" * num_bytes
    padded = [whole if mask is None else mask[:num_bytes].ljust(num_bytes, b"\0") for mask in masks]
    packed = np.frombuffer(b"".join(padded), np.uint8).reshape(len(padded), num_bytes)
    return torch.from_numpy(np.take(_LIMITS_OF_BYTE, packed, axis=0).reshape(len(padded), 8 * num_bytes)[:, :vocab])


def _mask_of(draw: Draw, vocab: int) -> bytes | None:
    """What mask and allowed tokens leave."""
    allowed = draw.sampler.allowed_tokens
    if allowed is None:
        return draw.mask
    kept = np.zeros(vocab, np.uint8)
    kept[list(allowed)] = 1
    packed = np.packbits(kept, bitorder="little")
    if draw.mask is not None:
        packed &= np.frombuffer(draw.mask[: len(packed)].ljust(len(packed), b"\0"), np.uint8)
    return packed.tobytes()
