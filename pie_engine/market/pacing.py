"""The bid of a program that names none: it spreads the balance over the rest of the program.

    bid = balance / (expected steps left × max(pages held, fair share of the pool))

rounded down to a power of two.

- Bidding so that what is left lasts for what is to come is budget pacing: a bidder that keeps its expenditure at
  balance / steps left is nearly as well off as one that knows all prices beforehand, and if all do so the prices settle
  (Balseiro and Gur, *Learning in Repeated Auctions with Budgets*, Management Science 65(9), 2019). As the price is at
  most the bid, a balance cannot run out before its time.
- A program that has lived for so long is expected to live as long again: the median of what is left to processes whose
  life times are distributed like 1/t (Harchol-Balter and Downey, *Exploiting Process Lifetime Distributions for Dynamic
  Load Balancing*, ACM TOCS 15(3), 1997).
- Who holds less than the fair share of the pool bids as if it held that much, else a program of one page would throw
  out one of a hundred for being small. Who holds more bids less for each.
- Powers of two, so that equals stay equal: who was served a little more has a little less balance, and would lose its
  pages to the other, back and forth. Within equal bids fairness decides (`market.fairness`).
"""

from __future__ import annotations

import numpy as np

from pie_engine.market.clearing import powers_of_two
from pie_engine.market.columns import Ints
from pie_engine.market.sharing import PARTS

MIN_REST_STEPS = 4096
"""Expected of a program that has just begun."""


def paced_bids(balances: Ints, ages: Ints, charges: Ints, fair_charge: int) -> Ints:
    """By account, in micro-credits for a page and a step.

    `ages`: steps since each of them has joined. `charges` and `fair_charge`: in `sharing.PARTS` of a page; of several
    rows of charges there come as many of bids.
    """
    num_pages = np.maximum(charges, max(fair_charge, PARTS)) / PARTS
    bids = np.maximum(balances, 0) / (np.maximum(ages, MIN_REST_STEPS) * num_pages)
    return powers_of_two(bids)
