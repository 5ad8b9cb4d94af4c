"""Orders of claims and of holders of pages: several keys packed into one integer each, since one sort of thousands of
integers costs a tenth of a sort by three keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pie_engine.market.columns import Floats, Ints

_PLACE_BITS, _WAIT_BITS, _GOT_BITS = 14, 10, 22
_AGE_BITS, _STANDING_BITS = 44, 2
_NEWEST = (1 << _AGE_BITS) - 1
_LONGEST_WAIT = (1 << _WAIT_BITS) - 1
_PLACES = np.arange(1 << _PLACE_BITS)


def first_to_run(graded: Ints, got: Floats, since: Ints, step: int) -> Ints:
    """Places of claims: by grade; of a grade, those that have `got` least; of those, the longest waiting; of those, in
    the order given. `got` is compared to about a four millionth of the largest, and changed."""
    got -= got[got.argmin()]
    got *= ((1 << _GOT_BITS) - 1) / max(float(got[got.argmax()]), 1e-300)
    keys = got.astype(np.int64)
    keys |= graded << _GOT_BITS
    keys <<= _WAIT_BITS + _PLACE_BITS
    waited_since = np.maximum(since, step - _LONGEST_WAIT)
    waited_since -= step - _LONGEST_WAIT
    waited_since <<= _PLACE_BITS
    keys |= waited_since
    num_claims = len(keys)
    keys |= _PLACES[:num_claims] if num_claims <= len(_PLACES) else np.arange(num_claims) % len(_PLACES)
    return keys.argsort()


def first_to_come(ages: Ints, waited: Ints) -> Ints:
    """Places of claims: the longest waiting first; of those, the oldest."""
    most = (1 << 18) - 1
    return np.argsort(((most - np.minimum(waited, most)) << _AGE_BITS) | ages)


@dataclass(frozen=True, slots=True)
class Givers:
    """Holders of pages, whoever gives them up first first: the weakest; of those the lowest standing; of idle ones the
    oldest, of others the youngest."""

    rows: Ints
    keys: Ints
    """Of these, ascending."""
    grades: Ints
    """By row, as holders; not only of those."""
    weakest: int

    @classmethod
    def of(cls, rows: Ints, grades: Ints, standing: Ints, ages: Ints, idle: int) -> Givers:
        """`rows`: those that hold any; the others by row."""
        weakest, standing, ages = int(grades.max(initial=0)), standing[rows], ages[rows]
        youth = np.where(standing == idle, ages, _NEWEST - ages)
        keys = ((weakest - grades[rows] << _STANDING_BITS | standing) << _AGE_BITS) | youth
        order = keys.argsort()
        return cls(rows[order], keys[order], grades, weakest)

    def before(self, row: int, standing: int, age: int) -> Ints:
        """Those that are weaker than `row` or, equally strong, of a lower standing or younger."""
        key = ((self.weakest - int(self.grades[row]) << _STANDING_BITS | standing) << _AGE_BITS) | (_NEWEST - age)
        return self.rows[: int(self.keys.searchsorted(key))]


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
