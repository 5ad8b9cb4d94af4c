"""Replies of the fake model as tokens, and the same text in other tokens where a grammar wants others."""

from __future__ import annotations

import math
from functools import cached_property

from pie_engine.driver.fake_script import Reply
from pie_engine.errors import InvalidConfig
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.sampling.draw import Draw
from pie_engine.sampling.plain import may_choose

Choice = dict[tuple[int, ...], float]
"""What may be said here, as tokens, with the share of each."""
Step = int | Choice
Steps = tuple[Step, ...]
"""What is still to be said."""


class Wording:
    """Between texts and the tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._end = tokenizer.eos_ids[0] if tokenizer.eos_ids else None

    def resumed(self, rest: Steps, token: int) -> Steps | None:
        """What is left behind a token that says the beginning of the text in another way."""
        text, data = self.text_ahead(rest), self.bytes_of(token)
        if not data or not text.startswith(data):
            return None
        return self.from_bytes(text[len(data) :], rest)

    def from_bytes(self, left: bytes, rest: Steps) -> Steps | None:
        """`left` of the text that `rest` begins with, and what is behind it; None: `left` begins within a character."""
        try:
            text = left.decode("utf-8")
        except UnicodeDecodeError:
            return None
        return (*self._tokenizer.encode(text, continues=True), *self.behind_text(rest))

    def said_otherwise(self, rest: Steps, draw: Draw) -> Steps | None:
        """With the longest token for a beginning of the text that may be chosen."""
        text = self.text_ahead(rest)
        for length in range(min(len(text), self._longest), 0, -1):
            token = self._by_bytes.get(text[:length])
            if token is not None and may_choose(draw, token):
                left = self.from_bytes(text[length:], rest)
                if left is not None:
                    return (token, *left)
        return None

    def steps_of(self, reply: Reply) -> Steps:
        """Raises `InvalidConfig` for a table that means nothing."""
        if not reply.tokens:
            return tuple(self._tokenizer.encode(reply.text))
        steps: list[Step] = []
        for step in reply.tokens:
            if isinstance(step, str):
                steps += self._tokenizer.encode(step, continues=bool(steps))
            else:
                steps.append(self._choice(step))
        return tuple(steps)

    def _choice(self, table: dict[str, float]) -> Choice:
        end = () if self._end is None else (self._end,)
        choice = {tuple(self._tokenizer.encode(text, continues=True)) or end: share for text, share in table.items()}
        for tokens, share in choice.items():
            text = self._tokenizer.decode(tokens)
            if share <= 0 or not math.isfinite(share):
                raise InvalidConfig(f"the share of `{text}` is {share}", hint="give each a number above 0")
            for other in choice:
                if other != tokens and other[: len(tokens)] == tokens:
                    longer = self._tokenizer.decode(other)
                    raise InvalidConfig(
                        f"`{text}` and `{longer}` cannot be told apart: one is the beginning of the other",
                        hint="leave one out, or go on after it with another table",
                    )
        return choice

    def text_ahead(self, rest: Steps) -> bytes:
        """Up to the next table."""
        tokens: list[bytes] = []
        for step in rest:
            if not isinstance(step, int):
                break
            tokens.append(self.bytes_of(step))
        return b"".join(tokens)

    def behind_text(self, rest: Steps) -> Steps:
        """From the next table on."""
        first = next((index for index, step in enumerate(rest) if not isinstance(step, int)), len(rest))
        return rest[first:]

    def bytes_of(self, token: int) -> bytes:
        """Of a token's text."""
        return self._tokenizer.token_bytes(token)

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        special = self._tokenizer.special_ids
        ids = (token for token in range(self._tokenizer.vocab_size) if token not in special)
        return {self.bytes_of(token): token for token in ids}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._by_bytes), default=0)


def first_tokens(choice: Choice) -> dict[int, float]:
    """What the next token may be, with the share of each."""
    shares: dict[int, float] = {}
    for tokens, share in choice.items():
        shares[tokens[0]] = shares.get(tokens[0], 0.0) + share
    return shares


def behind(rest: Steps, token: int) -> Steps | None:
    """What is left when `token` has been said; None: it is not what comes."""
    step = rest[0]
    if isinstance(step, int):
        return rest[1:] if token == step else None
    left = {tokens[1:]: share for tokens, share in step.items() if tokens[0] == token}
    if not left:
        return None
    return rest[1:] if () in left else (left, *rest[1:])
