"""A program's matchers: names for what the cores hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pie_engine.errors import Busy, InvalidInput
from pie_engine.host.operations import OneShot
from pie_engine.protocol.plan import Grammar
from pie_engine.protocol.to_core import ChangeMatcher, CreateMatcher, ForkMatcher, Look, ReleaseMatcher
from pie_engine.protocol.to_host import Looked

if TYPE_CHECKING:
    from pie_engine.host.contexts import Context


class Matcher:
    """Where in a grammar a reply stands; it lives as long as its context."""

    def __init__(self, handle: int, context: Context, num_tokens: int = 0) -> None:
        self.handle = handle
        self.context = context
        self.num_tokens = num_tokens
        """Taken so far, if all of them fitted."""
        self.num_passes = 0
        """Under way with its mask."""

    @classmethod
    def create(cls, context: Context, grammar: Grammar) -> Matcher:
        matcher = cls(context.process.next_id(), context)
        context.core.send(CreateMatcher(context.ctx, matcher.handle, grammar))
        return matcher

    def fork(self, context: Context) -> Matcher:
        """One at the same place, for `context`."""
        if context.core is not self.context.core:
            raise InvalidInput("a matcher cannot be forked for a context of another model")
        child = Matcher(context.process.next_id(), context, self.num_tokens)
        context.core.send(ForkMatcher(self.context.ctx, self.handle, context.ctx, child.handle))
        return child

    def advance(self, tokens: Sequence[int]) -> None:
        self.context.core.model.check_tokens(tokens)
        self._change(0, tokens)

    def rollback(self, count: int) -> None:
        if count > self.num_tokens:
            raise InvalidInput(f"cannot roll {count} tokens back: the matcher has taken {self.num_tokens}")
        self._change(count, ())

    def _change(self, num_back: int, tokens: Sequence[int]) -> None:
        if self.num_passes:
            raise Busy("a pass with this matcher is under way", hint="await it first, or change a fork of the matcher")
        self.num_tokens += len(tokens) - num_back
        self.context.core.send(ChangeMatcher(self.context.ctx, self.handle, num_back, list(tokens)))

    def release(self) -> None:
        self.context.core.send(ReleaseMatcher(self.context.ctx, self.handle))


class LookOperation(OneShot):
    kind = "a look at a matcher"

    def __init__(self, matcher: Matcher, tokens: list[int]) -> None:
        matcher.context.core.model.check_tokens(tokens)
        super().__init__(matcher.context)
        self.context.core.send(Look(self.handle, self.context.ctx, matcher.handle, tokens))

    def finish(self) -> Looked:
        result = self.take()
        assert isinstance(result, Looked)
        return result
