"""Whose turn it is when not all can be served: start-time fair queueing (Goyal, Vin, Cheng 1996), with equal weights.

Every claim gets a place in line when it is first seen: where the line is now, or behind what its owner has in line
already, whichever is later. So an owner with a thousand claims gets as much as one with a single claim, and what has a
place is passed only by as much as there is before it: nobody starves. Nothing is remembered while all are served.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


class FairQueue:
    """Claims in line. Costs one look at each claim and one sort for each call of `order`, nothing otherwise."""

    def __init__(self, quantum: int) -> None:
        """`quantum`: what a claim gets at most before its owner's next turn is due."""
        assert quantum > 0, quantum
        self._quantum = quantum
        self._now = 0
        self._starts: dict[Hashable, int] = {}
        """Places in line."""
        self._left: dict[Hashable, int] = {}
        """What each of them still gets before it has to line up again."""
        self._ends: dict[Hashable, int] = {}
        """Of each owner, where the next one of its claims lines up at the earliest."""

    @property
    def is_busy(self) -> bool:
        """Whether anybody has a place in line."""
        return bool(self._starts)

    def order(self, claims: Sequence[Hashable], owners: Sequence[Hashable], sizes: Sequence[int]) -> list[int]:
        """Indices of `claims`, all different, in the order of service; equals in the order given.

        Claim `i` belongs to `owners[i]` and asks for `sizes[i]`. Claims that are in line and not named have left it.
        """
        known, ends = self._starts, self._ends
        waiting = [known[claim] for claim in claims if claim in known]
        now = self._now = max(self._now, min(waiting) if waiting else max(ends.values(), default=0))
        starts: dict[Hashable, int] = {}
        left: dict[Hashable, int] = {}
        for claim, owner, size in zip(claims, owners, sizes, strict=True):
            start = known.get(claim)
            if start is None:
                start = max(now, ends.get(owner, 0))
                left[claim] = min(size, self._quantum)
                ends[owner] = start + left[claim]
            else:
                left[claim] = self._left[claim]
            starts[claim] = start
        self._starts, self._left = starts, left
        self._ends = {owner: end for owner, end in ends.items() if end > now}
        places = list(starts.values())
        assert len(places) == len(claims), "a claim is named twice"
        return sorted(range(len(claims)), key=places.__getitem__)

    def serve(self, claim: Hashable, amount: int) -> None:
        """The claim has got so much."""
        left = self._left.get(claim)
        if left is None:
            return
        if left > amount:
            self._left[claim] = left - amount
        else:
            del self._left[claim], self._starts[claim]

    def clear(self) -> None:
        """Everybody was served: nobody is ahead of anybody."""
        if self._starts or self._ends:
            self._now = 0
            self._starts, self._left, self._ends = {}, {}, {}
