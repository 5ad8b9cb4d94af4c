"""What is asked of a draw, and what comes of it. No torch, so that the control plane can make them."""

from __future__ import annotations

from dataclasses import dataclass

from pie_engine.errors import ErrorInfo, Internal, InvalidInput
from pie_engine.protocol.sampling import Sampler

NO_DISTRIBUTION = Internal("the model gave no distribution: its logits are NaN or infinite").info
NOTHING_ALLOWED = InvalidInput(
    "no token can be chosen: what is allowed and what is banned leave none of the vocabulary",
    hint="look at the grammar's mask, `allowed_tokens`, `banned_tokens` and `logit_bias` together",
).info


@dataclass(slots=True)
class Draw:
    """One token to be chosen from one row of logits."""

    sampler: Sampler
    uniform: float = 0.0
    """The random number in [0, 1) that decides; see `sampling.random`."""
    mask: bytes | None = None
    """One bit for each token, little-endian within the bytes, 1 = allowed; tokens past its end are not allowed."""


@dataclass(slots=True)
class Drawn:
    """`token` is None only where `fault` says why."""

    token: int | None = None
    fault: ErrorInfo | None = None


def is_allowed(mask: bytes, token: int) -> bool:
    """Whether `mask`, as in `Draw`, allows `token`."""
    return token < 8 * len(mask) and bool(mask[token >> 3] >> (token & 7) & 1)
