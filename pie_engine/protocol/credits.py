"""Credits as people and programs write them, and as the engine counts them: integers of micro-credits."""

from __future__ import annotations

import math
from typing import Literal

from pie_engine.config import MAX_ENDOWMENT
from pie_engine.errors import InvalidInput

CREDIT = 1_000_000
"""Micro-credits of one."""
PolicyName = Literal["market", "fcfs", "priority"]
MAX_BID = MAX_ENDOWMENT
"""Credits for a page and a step. Nobody could pay a higher one for a single step."""


def endowment_of(credits: float) -> int:
    """In micro-credits. Raises `InvalidInput` for what is no amount, or more than any process may have."""
    return _micro("an endowment", credits, MAX_ENDOWMENT)


def bid_of(credits: float) -> int:
    """In micro-credits for a page and a step. Raises `InvalidInput`, also for one that is too small to be counted."""
    bid = _micro("a bid", credits, MAX_BID)
    if credits and not bid:
        raise InvalidInput(
            f"a bid of {credits:g} credits is less than the smallest, {1 / CREDIT:f}", hint="bid 0, or more"
        )
    return bid


def _micro(what: str, credits: float, most: int) -> int:
    if not math.isfinite(credits) or not 0 <= credits <= most:
        raise InvalidInput(f"{what} is a number of credits from 0 to {most}; got {credits:.12g}")
    return round(credits * CREDIT)


def shown(micro: int) -> str:
    """`998.5`, `0.0021`, `-12`: credits with four digits that count, whole ones in full."""
    credits = micro / CREDIT
    return f"{credits:.0f}" if abs(credits) >= 1000 else f"{credits:.4g}"


def counted(number: str) -> str:
    """`1 credit`, `0.5 credits`."""
    return f"{number} credit" if number == "1" else f"{number} credits"
