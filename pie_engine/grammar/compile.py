"""Grammars compiled in the background and kept."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

from llguidance import LLMatcher, LLParserLimits

from pie_engine.errors import InvalidInput
from pie_engine.grammar.dialects import refusal, source_of
from pie_engine.grammar.match import Matcher
from pie_engine.grammar.vocabulary import TokenSource, Vocabulary
from pie_engine.protocol.plan import Grammar

COMPILE_TIMEOUT_S = 20.0
"""Far more than llguidance's own limits on what a grammar may be let it take."""
MAX_KEPT = 64
_NUM_THREADS = 2
# One state takes up to 2 kB; the default, 250,000, would let a single pattern take half a gigabyte.
_LIMITS = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)


class Compilation:
    """A grammar that is being compiled, or has been."""

    def __init__(self, grammar: Grammar, future: Future[Matcher], clock: Callable[[], float]) -> None:
        self._grammar, self._future, self._clock = grammar, future, clock
        self._deadline = clock() + COMPILE_TIMEOUT_S

    @property
    def is_done(self) -> bool:
        """Whether `matcher` has an answer, good or bad."""
        return self._future.done() or self._clock() >= self._deadline

    def matcher(self) -> Matcher:
        """A matcher at the start of the grammar. Raises `InvalidInput` or `Unsupported` saying what is wrong."""
        if not self._future.done():
            raise InvalidInput(
                f"the grammar has not been compiled within {COMPILE_TIMEOUT_S:.0f} s",
                hint="make it smaller, or run it again: it is being compiled still",
            )
        return self._future.result().fork()


class Compiler:
    """Compiles grammars for one vocabulary in threads of its own, and keeps the last 64; equal ones are compiled once.

    llguidance lets go of the interpreter lock while it compiles, so steps go on meanwhile.
    """

    def __init__(self, tokenizer: TokenSource, vocab_size: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokenizer, self._vocab_size, self._clock = tokenizer, vocab_size, clock
        self._kept: OrderedDict[Grammar, Compilation] = OrderedDict()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Made when it is first needed: most tests need none."""
        return Vocabulary(self._tokenizer, self._vocab_size)

    def prepare(self) -> None:
        """Make the vocabulary now, while nothing is in a hurry."""
        _ = self.vocabulary

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="grammar")

    def compile(self, grammar: Grammar) -> Compilation:
        """Begin, unless it has begun before."""
        compilation = self._kept.get(grammar)
        if compilation is None:
            future = self._threads.submit(_compiled, grammar, self.vocabulary)
            compilation = self._kept[grammar] = Compilation(grammar, future, self._clock)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(grammar)
        return compilation


def _compiled(grammar: Grammar, vocabulary: Vocabulary) -> Matcher:
    try:
        source = source_of(grammar)
    except ValueError as error:  # of llguidance
        raise refusal(grammar, str(error)) from error
    inner = LLMatcher(vocabulary.tokenizer, source, log_level=0, limits=_LIMITS)
    if inner.is_error():
        raise refusal(grammar, inner.get_error())
    return Matcher(inner, grammar, vocabulary)
