"""Where a reply stands in its grammar."""

from __future__ import annotations

from collections.abc import Sequence

from llguidance import LLMatcher

from pie_engine.errors import InvalidInput, PieError
from pie_engine.grammar.dialects import too_complex
from pie_engine.grammar.vocabulary import Vocabulary
from pie_engine.protocol.plan import Grammar

_DEAD_ENDS = ("NoExtension", "NoExtensionBias")


class Matcher:
    """The tokens of a reply so far, as its grammar sees them. One thread at a time; a few microseconds a call.

    Once it `is_broken` it stays so, and allows nothing.
    """

    __slots__ = ("_grammar", "_inner", "_vocabulary", "num_tokens")

    def __init__(self, inner: LLMatcher, grammar: Grammar, vocabulary: Vocabulary, num_tokens: int = 0) -> None:
        self._inner, self._grammar, self._vocabulary = inner, grammar, vocabulary
        self.num_tokens = num_tokens
        """Taken so far."""

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    def fork(self) -> Matcher:
        """Another one at the same place, which goes its own way."""
        return Matcher(self._inner.deep_copy(), self._grammar, self._vocabulary, self.num_tokens)

    def take(self, token: int) -> bool:
        """One more token of the reply. False when the grammar does not have it here; nothing is taken then."""
        is_taken = self._inner.try_consume_tokens([token]) == 1
        self.num_tokens += is_taken
        return is_taken

    def num_fitting(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, from the first on, the grammar could take here."""
        return self._inner.validate_tokens(list(tokens))

    def inject(self, tokens: Sequence[int]) -> None:
        """Take what the program dictates. Raises `InvalidInput` naming the first token that does not fit, and takes
        nothing then."""
        num_fitting = self.num_fitting(tokens)
        if num_fitting < len(tokens):
            wrong = tokens[num_fitting]
            raise InvalidInput(
                f"cannot inject these {len(tokens)} tokens: number {num_fitting + 1}, token {wrong} "
                f"({self._vocabulary.spelled(wrong)}), does not fit the grammar",
                hint="what is forced on a reply with a grammar has to follow it",
            )
        for token in tokens:
            self.take(token)

    def forced(self) -> list[int]:
        """The tokens that have to come next because nothing else can; they are not taken yet."""
        # The bytes are known at once; which tokens they are asks the tokenizer.
        return self._inner.compute_ff_tokens() if self._inner.compute_ff_bytes() else []

    def rewind(self, num_tokens: int) -> None:
        """Give the last `num_tokens` tokens back."""
        assert 0 <= num_tokens <= self.num_tokens, (num_tokens, self.num_tokens)
        if num_tokens and not self.is_broken:
            self._inner.rollback(num_tokens)
        self.num_tokens -= num_tokens

    def write_mask(self, address: int, num_bytes: int) -> None:
        """Write which tokens may come next to `address`, in the form of `Words`; `end_id` is set where it may end."""
        self._inner.unsafe_compute_mask_ptr(address, num_bytes)

    @property
    def may_end(self) -> bool:
        """Whether what there is satisfies the grammar."""
        return self._inner.is_accepting()

    @property
    def is_complete(self) -> bool:
        """Whether it satisfies the grammar and nothing can follow."""
        return self._inner.is_stopped() and self._inner.is_accepting()

    @property
    def is_exhausted(self) -> bool:
        """Whether no token can follow. Takes as long as a mask."""
        mask = int.from_bytes(self._inner.compute_bitmask(), "little")
        return not mask & ~(1 << self._vocabulary.end_id)

    @property
    def is_broken(self) -> bool:
        """Whether the grammar led into a dead end or past a limit. Known when the mask has been computed."""
        return self._inner.is_error()

    @property
    def fault(self) -> PieError:
        """Why it is broken."""
        message = self._inner.get_error().partition("\n")[0]
        if message in _DEAD_ENDS:
            return dead_end(self.num_tokens)
        return too_complex(self._grammar, message)


def dead_end(num_tokens: int) -> InvalidInput:
    """The error of a reply that cannot go on and cannot end."""
    return InvalidInput(
        f"the grammar is at a dead end after {num_tokens} tokens: no token can follow, and what is there does not "
        "satisfy it",
        hint="does it ask for characters that this model's tokens cannot spell, or for something impossible?",
    )
