"""What the fake model says of tokens besides their ids."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable

from inferlet._packing import pack_pairs

LOGPROB = -0.25
"""Of every token that the fake model writes."""
ENTROPY = 1.25
"""At every token, in nats."""


def packed_top(best: int, count: int) -> str:
    """`best` and the tokens after it, each half as likely as the one before."""
    return pack_pairs((best + i, math.log(0.5) * (i + 1)) for i in range(count))


def packed_floats(values: Iterable[float]) -> str:
    numbers = list(values)
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode("ascii")
