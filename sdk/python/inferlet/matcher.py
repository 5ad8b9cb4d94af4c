"""A grammar for replies that are written pass by pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inferlet import _checks, _transport
from inferlet._loop import finished

if TYPE_CHECKING:
    from inferlet.context import Context


@dataclass(slots=True)
class MatcherState:
    """Where a matcher stands."""

    may_end: bool
    """Whether what it has taken satisfies the grammar."""
    is_complete: bool
    """Whether, besides, nothing can follow."""
    forced: list[int]
    """Token ids that have to come next because nothing else can; it has not taken them."""


class Matcher:
    """Where in its grammar a reply stands. Make one with `Context.matcher`; give it to `Context.forward`.

    >>> matcher = ctx.matcher(Grammar.choice(["yes", "no"]))
    >>> out = await ctx.forward(sampler=Sampler.greedy(), matcher=matcher)
    >>> matcher.advance(out.token)

    It knows the tokens that it is given with `advance`, and nothing of those in a context. It belongs to a context and
    goes with it.
    """

    def __init__(self, context: Context, handle: int) -> None:
        """Use `Context.matcher`."""
        self._context, self._handle = context, handle

    def advance(self, tokens: int | Sequence[int]) -> Matcher:
        """Take one more token of the reply, or several. Returns the matcher.

        What does not fit is an error of whatever it is used for next, and of all after that.
        """
        ids = _checks.token_ids("what a matcher takes", [tokens] if isinstance(tokens, int) else tokens)
        if ids:
            _transport.call(_transport.host.matcher.advance, self._handle, ids)
        return self

    def rollback(self, count: int) -> Matcher:
        """Give the last `count` tokens back. Raises `InvalidInput` for more than it has taken."""
        number = _checks.count("count", count) or 0
        if number:
            _transport.call(_transport.host.matcher.rollback, self._handle, number)
        return self

    def fork(self, context: Context | None = None) -> Matcher:
        """Another one at the same place, which goes its own way: for `context`, a fork of this one's say."""
        target = self._context if context is None else context
        handle = _transport.call(_transport.host.matcher.fork, self._handle, target._live_id())
        return Matcher(target, handle)

    async def look(self) -> MatcherState:
        """Where it stands. Raises `InvalidInput` or `Unsupported` for a grammar that cannot be used."""
        state = await self._look([])
        return MatcherState(state.may_end, state.is_complete, list(state.forced))

    async def num_fitting(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, from the first on, it could take."""
        return (await self._look(_checks.token_ids("tokens", tokens))).num_fitting

    async def _look(self, ids: list[int]):
        wire = _transport.host.matcher
        return await finished(_transport.call(wire.look, self._handle, ids), wire.finish_look)

    def release(self) -> None:
        """Give it up now; otherwise it goes with its context."""
        if self._handle:
            _transport.call(_transport.host.matcher.release, self._handle)
            self._handle = 0

    def __repr__(self) -> str:
        return "Matcher(released)" if not self._handle else f"Matcher(id={self._handle})"
