"""What is asked of a draw, and what comes of it. No torch, so that the control plane can make them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pie_engine.errors import ErrorInfo, Internal, InvalidInput
from pie_engine.protocol.sampling import Sampler

NO_DISTRIBUTION = Internal("the model gave no distribution: its logits are NaN or infinite").info
NOTHING_ALLOWED = InvalidInput(
    "no token can be chosen: what is allowed and what is banned leave none of the vocabulary",
    hint="look at the grammar's mask, `allowed_tokens`, `banned_tokens` and `logit_bias` together",
).info


# Structs, since one of each is made for every token.
class Draw(msgspec.Struct, gc=False):
    """One token to be chosen from one row of logits."""

    sampler: Sampler
    uniform: float = 0.0
    """The random number in [0, 1) that decides; see `sampling.random`."""
    mask: bytes | None = None
    """One bit for each token, little-endian within the bytes, 1 = allowed; tokens past its end are not allowed."""
    history: Sequence[int] = ()
    """The tokens before the one to be chosen, needed where the sampler reads them; an array (`"i"`) is read fastest."""
    prompt_length: int = 0
    """How many of them were not generated."""
    xtc_uniform: float = 0.0
    """A second random number in [0, 1): whether XTC applies."""
    mirostat_mu: float | None = None
    """Mirostat's bound on the surprise, in bits; None: its start, twice the target."""

    @property
    def is_adjusted(self) -> bool:
        """Whether its logits change before anything is chosen."""
        return self.mask is not None or self.sampler.changes_logits


class Drawn(msgspec.Struct, gc=False):
    """`token` is None only where `fault` says why."""

    token: int | None = None
    fault: ErrorInfo | None = None
    mirostat_mu: float | None = None
    """The bound for the next draw, where mirostat chose."""


def is_allowed(mask: bytes, token: int) -> bool:
    """Whether `mask`, as in `Draw`, allows `token`."""
    return token < 8 * len(mask) and bool(mask[token >> 3] >> (token & 7) & 1)
