"""What samplers remember of a context, beside its KV: the tokens in a form that is fast to count, and mirostat's state.

All of it belongs to positions, so that taking tokens back takes it back, too.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from pie_engine.kv.shared import SharedList


class _Bound(NamedTuple):
    """Mirostat's bound after the draw for `position`, in bits, and the one before it; forks share those."""

    position: int
    bound: float
    before: _Bound | None


class SamplerMemory:
    """Of one context. Whoever shortens the context calls `truncate`; growing is noticed here."""

    __slots__ = ("_bound", "_history", "_tau")

    def __init__(self) -> None:
        self._history = array("i")
        self._tau = 0.0
        self._bound: _Bound | None = None
        """The last one; they are of plans that aim at `_tau`."""

    def history(self, tokens: SharedList[int]) -> array[int]:
        """`tokens`, all that the context has, as an array. It is the one that is kept: to be read at once only."""
        history = self._history
        history.extend(tokens.part(len(history), len(tokens)))
        assert len(history) == len(tokens), "the context was shortened past its memory"
        assert not history or history[-1] == tokens[-1]
        return history

    def bound(self, position: int, tau: float) -> float | None:
        """Mirostat's bound for the draw at `position`; None: it starts with it, or aims at something else now."""
        found = self._before(position)
        return found.bound if found is not None and tau == self._tau else None

    def set_bound(self, position: int, tau: float, bound: float) -> None:
        """What follows from the draw at `position`."""
        if tau != self._tau:
            self.forget_bounds()
        self.truncate(position)
        self._tau = tau
        self._bound = _Bound(position, bound, self._bound)

    def forget_bounds(self) -> None:
        """Mirostat starts anew."""
        self._bound = None

    def truncate(self, length: int) -> None:
        """The context keeps its first `length` tokens."""
        del self._history[length:]
        self._bound = self._before(length)

    def fork(self, length: int) -> SamplerMemory:
        """Of a context that starts as the first `length` tokens."""
        child = SamplerMemory()
        child._tau, child._bound = self._tau, self._before(length)
        return child

    def _before(self, position: int) -> _Bound | None:
        """The last bound of those for positions before `position`."""
        found = self._bound
        while found is not None and found.position >= position:
            found = found.before
        return found
