"""Which random numbers a context draws: a pure function of (seed, lineage, position), whatever else runs."""

from __future__ import annotations

from pie_engine.sampling.random import start_of, stream_key, uniform_at


class RandomStream:
    """The random numbers of one context.

    `lineage` is the path from the seed to here: a fork appends its index among its parent's forks; turns (rewinds and
    truncations) since the last fork are one negative entry, minus their count. So no two branches share a lineage,
    and the same steps from the same seed lead to the same one.
    """

    __slots__ = ("_num_forks", "_start", "lineage", "seed")

    def __init__(self, seed: int, lineage: tuple[int, ...] = ()) -> None:
        self.seed = seed
        self.lineage = lineage
        self._num_forks = 0
        self._start = start_of(stream_key(seed, lineage))

    def draw(self, position: int, index: int = 0) -> float:
        """The number in [0, 1) for the token at `position`; `index` tells several of one apart."""
        return uniform_at(self._start, position, index)

    def fork(self) -> RandomStream:
        child = RandomStream(self.seed, (*self.lineage, self._num_forks))
        self._num_forks += 1
        return child

    def turn(self) -> None:
        """What was drawn from here on is drawn anew."""
        if self.lineage and self.lineage[-1] < 0:
            self.lineage = (*self.lineage[:-1], self.lineage[-1] - 1)
        else:
            self.lineage = (*self.lineage, -1)
        self._start = start_of(stream_key(self.seed, self.lineage))
