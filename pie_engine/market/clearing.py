"""The price of a page, and what everybody pays: pure arithmetic over columns, in micro-credits.

A uniform price: the highest bid that did not fit, for everybody who has what that bid wanted (Vickrey 1961 for one
thing; with several the winners' own bids may set it, Ausubel et al. 2014). Nobody pays more than its own bid.
"""

from __future__ import annotations

import numpy as np

from pie_engine.market.columns import Ints
from pie_engine.market.sharing import PARTS


def affordable(balances: Ints, charges: Ints) -> Ints:
    """The highest bid for a page with which each account could pay a step. `charges`: all that it holds, at least a
    page is assumed. 0 without a balance."""
    return np.maximum(balances, 0) * PARTS // np.maximum(charges, PARTS)


def price_of(bids: Ints) -> int:
    """`bids`: those that did not fit."""
    return int(bids.max()) if len(bids) else 0


def rents(prices: Ints, bids: Ints, charges: Ints) -> Ints:
    """What holders pay for a step, each at its price. `bids`: at most what is `affordable`, so that an account can pay
    the sum."""
    return np.minimum(bids, prices) * charges // PARTS
