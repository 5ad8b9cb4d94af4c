"""Matchers that programs hold: where in its grammar a reply stands that the program writes pass by pass."""

from __future__ import annotations

from collections.abc import Sequence

from pie_engine.core.operation import ModelFacts, Operation
from pie_engine.core.state import Context
from pie_engine.driver.base import RowResult
from pie_engine.errors import Cancelled, InvalidInput, PieError
from pie_engine.grammar.compile import Compilation
from pie_engine.grammar.mask import Mask, Masks
from pie_engine.grammar.match import Matcher
from pie_engine.grammar.vocabulary import Words
from pie_engine.protocol.to_core import Look
from pie_engine.protocol.to_host import Looked


class HeldMatcher:
    """One of them. It takes tokens at once, also while its grammar is being compiled.

    What does not fit is told by the next use, and by all after that.
    """

    def __init__(self, compilation: Compilation) -> None:
        self._compilation = compilation
        self._matcher: Matcher | None = None
        self._waiting: list[int] = []
        """Tokens to be taken when it is compiled."""
        self._fault: PieError | None = None

    @property
    def is_ready(self) -> bool:
        """Whether `matcher` has an answer."""
        return self._compilation.is_done

    def matcher(self) -> Matcher:
        """Where it stands. Raises `InvalidInput` or `Unsupported` for the grammar, and for what did not fit it."""
        if self._fault is None and self._matcher is None:
            self._matcher = self._compilation.matcher()
            self._take(self._matcher, self._waiting)
        if self._fault is not None:
            raise self._fault
        assert self._matcher is not None
        return self._matcher

    def change(self, num_back: int, tokens: Sequence[int]) -> None:
        """Give `num_back` tokens back, then take `tokens`."""
        if self._matcher is None:
            del self._waiting[max(len(self._waiting) - num_back, 0) :]
            self._waiting += tokens
        elif self._fault is None:
            self._matcher.rewind(min(num_back, self._matcher.num_tokens))
            self._take(self._matcher, tokens)

    def fork(self) -> HeldMatcher:
        """Another one at the same place."""
        child = HeldMatcher(self._compilation)
        child._matcher = None if self._matcher is None else self._matcher.fork()
        child._waiting, child._fault = self._waiting.copy(), self._fault
        return child

    def mask(self, masks: Masks, eos_ids: Sequence[int]) -> Mask:
        """What may come next: what the grammar has, and the model's stop tokens where it may end."""
        matcher = self.matcher()
        stops: Words = matcher.vocabulary.words_of(eos_ids)
        return masks.ask(matcher, stops)

    def _take(self, matcher: Matcher, tokens: Sequence[int]) -> None:
        num_fitting = matcher.num_fitting(tokens)
        for token in tokens[:num_fitting]:
            matcher.take(token)
        if num_fitting < len(tokens):
            wrong = tokens[num_fitting]
            self._fault = InvalidInput(
                f"token {wrong} ({matcher.vocabulary.spelled(wrong)}) does not fit the grammar after its first "
                f"{matcher.num_tokens} tokens",
                hint="`await matcher.num_fitting(tokens)` tells beforehand, and a fork of the matcher can go back",
            )


class LookOperation(Operation):
    """Where a matcher stands, once it is known."""

    kind = "look"
    __slots__ = ("_held", "_message")

    def __init__(self, message: Look, context: Context, facts: ModelFacts, arrival: int, held: HeldMatcher) -> None:
        super().__init__(message.op, context, facts, arrival)
        self._message, self._held = message, held

    @property
    def is_ready(self) -> bool:
        return self._held.is_ready

    def begin(self) -> None:
        self.has_begun = True
        self.facts.check_tokens(self._message.tokens)
        matcher = self._held.matcher()
        num_fitting = matcher.num_fitting(self._message.tokens) if self._message.tokens else 0
        looked = Looked(self.op, num_fitting, matcher.may_end, matcher.is_complete, matcher.forced())
        self.is_over = True
        self.context.process.host.send(looked)

    def settle(self, result: RowResult, now: float) -> None:
        raise AssertionError("it has nothing to run")

    def stop(self, keep: int) -> None:
        self.fail(Cancelled("the look at a matcher was called off").info)
