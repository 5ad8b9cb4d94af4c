"""What changes the logits before anything is chosen, greedy or not: the mask of allowed tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pie_engine.sampling.draw import Draw


def is_adjusted(draw: Draw) -> bool:
    """Whether `adjusted` would change the logits of this draw."""
    return draw.mask is not None


def adjusted(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """A changed copy of `logits` [rows, vocab], one row for each of `draws`."""
    masks = [draw.mask for draw in draws]
    return torch.minimum(logits, _limits(masks, logits.shape[1]))


def _limits(masks: Sequence[bytes | None], vocab: int) -> Tensor:
    """+inf where a token is allowed and -inf where not [rows, vocab]; the minimum with it keeps NaN."""
    num_bytes = -(-vocab // 8)
    whole = [b"\xff" * num_bytes if mask is None else mask[:num_bytes].ljust(num_bytes, b"\0") for mask in masks]
    packed = np.frombuffer(b"".join(whole), np.uint8).reshape(len(masks), num_bytes)
    bits = np.unpackbits(packed, axis=1, count=vocab, bitorder="little")
    return (torch.from_numpy(bits).float() - 0.5) * torch.inf
