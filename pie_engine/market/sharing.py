"""Pages as they are charged: a page that several contexts hold is split among them.

Each of k holders has 1/k of the page. That is the Shapley value of the game in which holding a set of pages costs as
much as there are different pages in it: the page costs the same whoever comes first, so each pays for the orders in
which it does (Shapley 1953; Littlechild and Owen 1973 for facilities that are shared).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from pie_engine.market.columns import Ints, sums

PARTS = 840
"""Of a page: what 1 to 8 holders have of it is whole."""
EVERY_STEPS = 16
"""While there is a price, pages are counted anew after so many steps: a decode takes one page in that time."""


def charges(tables: Sequence[array[int]], num_pages: int) -> Ints:
    """What the holders have of pages `0 … num_pages - 1`, in `PARTS` of a page.

    `tables`: the pages of each holder, the oldest holder first; a page below 0 is none, and no page is there twice.
    They sum up to `PARTS` for each page that is held: what k does not divide is the oldest holder's.
    """
    return holdings(tables, num_pages)[1]


def holdings(tables: Sequence[array[int]], num_pages: int) -> tuple[Ints, Ints]:
    """How many pages each of them holds, and their `charges`."""
    lengths = np.fromiter(map(len, tables), np.int64, len(tables))
    held = np.zeros(len(tables), np.int64)
    if not lengths.any():
        return lengths, held
    pages = np.frombuffer(b"".join(tables), np.int64)
    holders = np.repeat(np.arange(len(tables)), lengths)
    if pages.min() < 0:
        there = pages >= 0
        pages, holders = pages[there], holders[there]
        lengths = np.bincount(holders, minlength=len(tables))
    num_holders = np.bincount(pages, minlength=num_pages)
    parts = PARTS // np.maximum(num_holders, 1)
    held += sums(holders, parts[pages], len(tables))
    left = (PARTS - parts * num_holders)[pages] > 0
    if left.any():
        # Of several stores into one place the last one stays.
        oldest = np.full(num_pages, -1)
        oldest[pages[left][::-1]] = holders[left][::-1]
        shared = np.flatnonzero(oldest >= 0)
        held += sums(oldest[shared], PARTS - parts[shared] * num_holders[shared], len(tables))
    return lengths, held
