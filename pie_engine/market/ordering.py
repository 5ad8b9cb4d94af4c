"""Orders of claims and of holders of pages: several keys packed into one integer each, since one sort of thousands of
integers costs a tenth of a sort by three keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from pie_engine.market.book import AGE_BITS, FIRM_BITS, Book
from pie_engine.market.columns import Floats, Ints, ints_of

Grade = TypeVar("Grade", int, Ints)

_PLACE_BITS, _WAIT_BITS, _GOT_BITS = 14, 10, 22
"""Of a key. More claims take more bits for places, and leave less for what they got."""
_LONGEST_WAIT = (1 << _WAIT_BITS) - 1


def first_to_run(graded: Ints, got: Floats, since: Ints, step: int) -> Ints:
    """Places of claims: by grade; of a grade, those that have `got` least; of those, the longest waiting; of those, in
    the order given. `got` is compared to about a four millionth of the largest, and changed."""
    num_claims = len(got)
    place_bits = max(_PLACE_BITS, num_claims.bit_length())
    got_bits = _GOT_BITS + _PLACE_BITS - place_bits
    got -= got[got.argmin()]
    got *= ((1 << got_bits) - 1) / max(float(got[got.argmax()]), 1e-300)
    keys = got.astype(np.int64)
    keys |= graded << got_bits
    keys <<= _WAIT_BITS
    waited_since = np.maximum(since, step - _LONGEST_WAIT)
    waited_since -= step - _LONGEST_WAIT
    keys |= waited_since
    keys <<= place_bits
    keys |= np.arange(num_claims)
    # The places come with the keys: cheaper than an argsort.
    keys.sort()
    keys &= (1 << place_bits) - 1
    return keys


def first_to_come(ages: Ints, waited: Ints) -> Ints:
    """Places of claims: the longest waiting first; of those, the oldest."""
    most = (1 << 18) - 1
    return np.argsort(((most - np.minimum(waited, most)) << AGE_BITS) | ages)


class Givers:
    """Holders of pages in one step, whoever gives them up first first: the weakest; of those the least firm. Those who
    keep theirs in this step have none to give."""

    __slots__ = ("_keys", "_places", "num_pages", "rows")

    def __init__(self, rows: Ints, grades: Ints, book: Book) -> None:
        """`rows`: those that hold any. `grades` of them as holders: 0 for the strongest, more for weaker ones."""
        keys = _key(grades, book.firmness.ints[rows])
        order = keys.argsort()
        self._keys = keys[order]
        self.rows: Ints = rows[order]
        self.num_pages: Ints = np.zeros(len(rows) + 1, np.int64)
        """That each of them can give, and behind those a place for who is not among them."""
        self.num_pages[:-1] = book.num_pages.ints[self.rows]
        self._places = np.full(book.end, len(rows))
        """By row."""
        self._places[self.rows] = np.arange(len(rows))

    def num_before(self, grade: int, firmness: int) -> int:
        """How many of them are weaker or, equally strong, less firm."""
        return int(self._keys.searchsorted(_key(grade, firmness)))

    def place_of(self, row: int) -> int:
        """Behind all, if it is not among them."""
        return int(self._places[row])

    def keep(self, rows: Sequence[int] | Ints) -> None:
        """These give nothing in this step, or have given all."""
        self.num_pages[self._places[ints_of(rows)]] = 0

    def keep_one(self, row: int) -> None:
        """As `keep`, which takes as long for one as for hundreds."""
        self.num_pages[self._places[row]] = 0


def _key(grade: Grade, firmness: Grade) -> Grade:
    return firmness - (grade << FIRM_BITS)


def ranks(owners: Ints, since: Ints) -> Ints | None:
    """Of each claim among those of its owner: 0 for the one that waits longest, 1 for the next, …; None: all 0."""
    if not len(owners) or np.bincount(owners).max() < 2:
        return None
    order = np.lexsort((since, owners))
    sorted_owners = owners[order]
    is_first = np.diff(sorted_owners, prepend=-1) != 0
    places = np.arange(len(owners))
    found = np.empty(len(owners), np.int64)
    found[order] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return found


def interleaved(first: Ints, everybody: Ints) -> Ints:
    """Every other place is for one of `first`, in their order, as long as there are any; the others in theirs.
    `everybody` are the numbers from 0 on, in some order."""
    is_other = np.ones(len(everybody), bool)
    is_other[first] = False
    rest = everybody[is_other[everybody]]
    num_pairs = min(len(first), len(rest))
    found = np.empty(len(everybody), np.int64)
    found[: 2 * num_pairs : 2], found[1 : 2 * num_pairs : 2] = first[:num_pairs], rest[:num_pairs]
    found[2 * num_pairs :] = first[num_pairs:] if len(first) > num_pairs else rest[num_pairs:]
    return found
