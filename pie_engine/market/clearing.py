"""The price of a page, and what everybody pays: pure arithmetic over columns, in micro-credits.

A uniform price: the highest bid that did not fit, for everybody who has what that bid wanted (Vickrey 1961 for one
thing; with several the winners' own bids may set it, Ausubel et al. 2014). Nobody pays more than its own bid.
"""

from __future__ import annotations

import numpy as np

from pie_engine.market.columns import Floats, Ints
from pie_engine.market.sharing import PARTS

_MOST = 1 << 61
_EXPONENT = 0x7FF << 52


def affordable(balances: Ints, charges: Ints) -> Ints:
    """The highest bid for a page with which each account could pay a step, rounded down to a power of two: equally rich
    ones would throw each other out in turn, if what one has paid made it the weaker. 0 without a balance.

    `charges`: all that it holds or needs; at least a page is assumed."""
    return powers_of_two(np.maximum(balances, 0) * (PARTS / np.maximum(charges, PARTS)))


def price_of(bids: Ints) -> int:
    """`bids`: those that did not fit."""
    return int(bids[bids.argmax()]) if len(bids) else 0


def rents(prices: Ints, bids: Ints, charges: Ints) -> Ints:
    """What holders pay for a step, each at its price. `bids`: at most what is `affordable`, so that an account can pay
    the sum."""
    # What was counted anew since the bids were made may be much more.
    paid: Ints = np.minimum(np.minimum(bids, prices), _MOST // np.maximum(charges, 1)) * charges // PARTS
    return paid


def rent(bid: int, charge: int) -> int:
    """What one of them pays whose price is no lower than its bid."""
    return min(bid, _MOST // max(charge, 1)) * charge // PARTS


def powers_of_two(values: Floats) -> Ints:
    """Rounded down; 0 below 1. They are 0 or more."""
    # Without its fraction, a floating-point number is that power.
    return (values.view(np.int64) & _EXPONENT).view(np.float64).astype(np.int64)
