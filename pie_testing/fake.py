"""The scripted model: what it says, how fast, and how it fails."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pie_engine.config import ModelSection
from pie_engine.driver.fake_script import FakeScript, Fault, Reply
from pie_engine.errors import InvalidInput

NAME = "fake"
NUM_PAGES = 1024
CORE_LOST = "core_lost"

Said = str | list[str | dict[str, float]] | dict[str, float]
"""A text; or a list, piece by piece; a table is for one place in it: what may be said there, and the share of each."""


class FakeModel:
    """A model that says what it is told to. Each test has one of its own; it is the test's default model.

        fake.replies("Hello!", "Bye!")                 # one for each prompt, in this order
        fake.reply("Paris", match="capital")           # wherever the prompt holds it, as often as it is asked
        fake.replies(["It is ", {"so": 3, "not": 1}])  # what is drawn depends on the sampler

    A reply goes on as long as the context holds what was asked and what of it has been said; anything else begins the
    next one. Without a reply that is left the program gets an error.
    """

    def __init__(self) -> None:
        self._replies: list[Reply] = []
        self._more: dict[str, Any] = {"strict": True, "max_context_tokens": NUM_PAGES * 16}
        self._num_pages = NUM_PAGES

    # What it says.

    def replies(self, *said: Said) -> None:
        """One for each prompt, in this order, after those that were given before."""
        self._replies += [_reply(text, once=True) for text in said]

    def reply(self, said: Said, *, match: str = "") -> None:
        """For every prompt in which the regular expression is found. It comes behind what was given before."""
        try:
            re.compile(match)
        except re.error as error:
            raise InvalidInput(f"`{match}` is no regular expression: {error}") from error
        self._replies.append(_reply(said, match=match or None))

    def babble(self, mean_length: int = 0) -> None:
        """Where there is no reply, words without sense: the same for the same prompt. They end after `mean_length`
        tokens on average; 0: never."""
        self._more |= {"strict": False, "mean_length": mean_length}

    # How it is.

    def slow(self, *, pass_ms: float = 0.0, token_ms: float = 0.0) -> None:
        """Each forward pass takes that long, and longer by so much for each of its tokens."""
        self._more |= {"step_delay_ms": pass_ms, "token_delay_ms": token_ms}

    def fail(self, code: str = "internal", *, at_pass: int = 0, message: str = "scripted failure") -> None:
        """Forward pass number `at_pass` of the test fails, the first one is 0. `core_lost`: the model dies and is
        started again; any other code is what the program's call raises, `out_of_pages` for one."""
        row = None if code == CORE_LOST else 0
        self._more["faults"] = (*self._more.get("faults", ()), Fault(at_pass, row, message, code))

    def limit(self, *, pages: int | None = None, context_tokens: int | None = None) -> None:
        """So many KV pages of 16 tokens for all, and so many tokens in a context."""
        for name, number in (("pages", pages), ("context_tokens", context_tokens)):
            if number is not None and number < 1:
                raise InvalidInput(f"`{name}` is {number}", hint="it must be at least 1")
        self._num_pages = self._num_pages if pages is None else pages
        if context_tokens is not None:
            self._more["max_context_tokens"] = context_tokens

    # For the engine.

    @property
    def script(self) -> FakeScript:
        return FakeScript(replies=tuple(self._replies), **self._more)

    @property
    def section(self) -> ModelSection:
        return ModelSection(name=NAME, driver="fake", num_pages=self._num_pages, offload_memory_mb=1)


def _reply(said: Said, *, once: bool = False, match: str | None = None) -> Reply:
    if isinstance(said, str):
        return Reply(said, match, once)
    pieces = [said] if isinstance(said, dict) else said
    try:
        return Reply("", match, once, msgspec.convert(pieces, tuple[str | dict[str, float], ...]))
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"a reply is a text, or a list of texts and tables; got {said!r}: {error}",
            hint='a table says what comes and how likely it is: {"yes": 0.7, "no": 0.3}',
        ) from error
