"""What a row of logits says, before anything changes it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from pie_engine.protocol.sampling import Probed, Probes, TopToken
from pie_engine.sampling.adjust import limits


@torch.inference_mode()
def logprobs(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """Log-probabilities of `tokens` under one row of logits [vocab]."""
    return (logits[list(tokens)] - logits.logsumexp(-1)).tolist()


@torch.inference_mode()
def top_tokens(logits: Tensor, count: int, mask: bytes | None = None) -> list[TopToken]:
    """The `count` likeliest tokens of one row [vocab] that `mask` allows (None: all), likeliest first.

    The mask changes no probability; where it allows fewer, the rest has -inf.
    """
    allowed = logits if mask is None else torch.minimum(logits, limits([mask], len(logits))[0])
    values, ids = allowed.topk(min(count, len(logits)))
    found = (values - logits.logsumexp(-1)).tolist()
    return [TopToken(token, value) for token, value in zip(ids.tolist(), found, strict=True)]


@torch.inference_mode()
def entropy(logits: Tensor) -> float:
    """Of the distribution of one row [vocab], in nats; what is impossible adds nothing."""
    logs = logits.double().log_softmax(-1)
    return -float((logs.exp() * logs.clamp(min=-1e4)).sum())


def probed(logits: Tensor, state: Tensor | None, wanted: Probes, mask: bytes | None = None) -> Probed:
    """Of one row: `logits` [vocab], `state` [hidden size], and the mask of its draw."""
    return Probed(
        top=top_tokens(logits, wanted.top_k, mask if wanted.of_allowed else None) if wanted.top_k else [],
        logprobs=logprobs(logits, wanted.logprobs_of) if wanted.logprobs_of else [],
        entropy=entropy(logits) if wanted.entropy else None,
        logits=_packed(logits) if wanted.logits else b"",
        hidden=_packed(state) if wanted.hidden and state is not None else b"",
    )


def _packed(values: Tensor) -> bytes:
    """fp32, little-endian."""
    array = values.float().numpy()
    return (array if sys.byteorder == "little" else array.byteswap()).tobytes()
