"""Seeded drawing of words, names and numbers, with a train/held-out split by construction."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pie_engine.model.tiny import words

Json = dict[str, Any]
Split = Literal["train", "held_out"]
T = TypeVar("T")

HELD_OUT_ONE_IN = 8


def is_held_out(key: str) -> bool:
    """Whether an entity, value or combination belongs to the held-out split; a pure function of its text."""
    return zlib.crc32(f"pie-tiny:{key}".encode()) % HELD_OUT_ONE_IN == 0


@dataclass(frozen=True)
class Example:
    """One training conversation, or one plain text.

    Args:
        family: which generator made it.
        messages: chat messages; the last one is the assistant's. Empty for a plain text.
        tools: JSON schemas of the tools in the prompt.
        expect: what `evaluate` checks the last answer for; empty if it is not checked.
        text: the plain text of an example without messages.
    """

    family: str
    messages: list[Json] = field(default_factory=list)
    tools: list[Json] = field(default_factory=list)
    expect: Json = field(default_factory=dict)
    text: str = ""


def system(content: str) -> Json:
    return {"role": "system", "content": content}


def user(content: str) -> Json:
    return {"role": "user", "content": content}


def assistant(content: str) -> Json:
    return {"role": "assistant", "content": content}


class Draw:
    """A random source whose names, numbers and combinations stay on one side of the split."""

    def __init__(self, seed: int, split: Split = "train") -> None:
        self.random = random.Random(f"{seed}/{split}")
        self.split = split

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.random.random() * len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        return self.random.sample(options, count)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def integer(self, low: int, high: int) -> int:
        return low + int(self.random.random() * (high - low + 1))

    def fresh(self, make: Callable[[], T], key: Callable[[T], str] = str) -> T:
        """Draw until the value belongs to this side of the split."""
        wanted = self.split == "held_out"
        while True:
            value = make()
            if is_held_out(key(value)) == wanted:
                return value

    def known(self, options: Sequence[str]) -> str:
        """A word of a fixed table, from this side of the split."""
        return self.fresh(lambda: self.pick(options))

    def invented(self, min_syllables: int = 2, max_syllables: int = 3) -> str:
        """A capitalised word of random syllables."""
        return self.fresh(lambda: self._syllables(self.integer(min_syllables, max_syllables)).capitalize())

    def _syllables(self, count: int) -> str:
        pick = self.pick
        body = "".join(pick(words.ONSETS) + pick(words.VOWELS) for _ in range(count))
        return body + pick(words.CODAS)

    def person(self) -> str:
        return self.known(words.FIRST_NAMES) if self.chance(0.4) else self.invented()

    def people(self, count: int) -> list[str]:
        return self.distinct(self.person, count)

    def place(self) -> str:
        return self.known(words.CITIES) if self.chance(0.4) else self.invented()

    def distinct(self, make: Callable[[], T], count: int) -> list[T]:
        found: list[T] = []
        while len(found) < count:
            value = make()
            if value not in found:
                found.append(value)
        return found

    def number(self, min_digits: int = 1, max_digits: int = 5) -> int:
        """A whole number; those of three digits and more belong to this side of the split."""
        digits = self.integer(min_digits, max_digits)
        low, high = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits - 1
        if digits < 3:
            return self.integer(low, high)
        return self.fresh(lambda: self.integer(low, high))

    def code(self) -> str:
        """A code of capitals and digits such as `KX-4821`."""
        letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"

        def make() -> str:
            prefix = "".join(self.pick(letters) for _ in range(self.integer(1, 3)))
            return f"{prefix}{self.pick(['-', '', ''])}{self.integer(10, 99999)}"

        return self.fresh(make)

    def value(self) -> str | int:
        """A name, a number or a code."""
        makers: tuple[Callable[[], str | int], ...] = (self.invented, self.number, self.code)
        return self.pick(makers)()

    def price(self) -> str:
        return self.fresh(lambda: f"{self.integer(1, 99)}.{self.pick(['50', '99', '25', '00', '75', '20', '40'])}")

    def casual(self, text: str) -> str:
        """The same request as people type it: sometimes without capital, final mark or with `please`."""
        roll = self.random.random()
        if roll < 0.06 and not text[1:2].isupper():
            text = text[0].lower() + text[1:]
        elif roll < 0.11:
            text = text.rstrip(".?!") or text
        elif roll < 0.15 and text.endswith("."):
            text = text[:-1] + ", please."
        elif roll < 0.18 and text[-1].isalnum():
            text += "."
        return text
