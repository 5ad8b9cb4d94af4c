"""What samplers remember of a context, beside its KV: the tokens in a form that is fast to count, and mirostat's state.

All of it belongs to positions, so that taking tokens back takes it back, too.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left


class SamplerMemory:
    """Of one context. Whoever shortens the context calls `truncate`; growing is noticed here."""

    __slots__ = ("_bounds", "_history", "_positions", "_tau")

    def __init__(self) -> None:
        self._history = array("i")
        self._tau = 0.0
        self._positions: list[int] = []
        self._bounds: list[float] = []
        """After the draw for each of `_positions`, in bits; they are of plans that aim at `_tau`."""

    def history(self, tokens: list[int]) -> array[int]:
        """`tokens`, all that the context has, as an array. It is the one that is kept: to be read at once only."""
        history = self._history
        history.extend(tokens[len(history) :])
        assert len(history) == len(tokens), "the context was shortened past its memory"
        assert not tokens or history[-1] == tokens[-1]
        return history

    def bound(self, position: int, tau: float) -> float | None:
        """Mirostat's bound for the draw at `position`; None: it starts with it, or aims at something else now."""
        index = bisect_left(self._positions, position)
        return self._bounds[index - 1] if index and tau == self._tau else None

    def set_bound(self, position: int, tau: float, bound: float) -> None:
        """What follows from the draw at `position`."""
        if tau != self._tau:
            self.forget_bounds()
        self.truncate(position)
        self._tau = tau
        self._positions.append(position)
        self._bounds.append(bound)

    def forget_bounds(self) -> None:
        """Mirostat starts anew."""
        self._positions, self._bounds = [], []

    def truncate(self, length: int) -> None:
        """The context keeps its first `length` tokens."""
        del self._history[length:]
        index = bisect_left(self._positions, length)
        del self._positions[index:], self._bounds[index:]

    def fork(self, length: int) -> SamplerMemory:
        """Of a context that starts as the first `length` tokens."""
        child = SamplerMemory()
        index = bisect_left(self._positions, length)
        child._tau, child._positions, child._bounds = self._tau, self._positions[:index], self._bounds[:index]
        return child
