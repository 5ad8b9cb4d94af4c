"""Sequences whose tokens see what they like, for tests: the rows that run them, and the mask of a dense reference."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pie_engine.driver.base import Row
from pie_engine.kv.layout import Layout, united
from pie_engine.protocol.sampling import GREEDY, Sampler

PAGE = 16
"""Tokens of a page, unless a line says otherwise."""


@dataclass
class Line:
    """Tokens, where they stand, and which of them each one sees (numbers of tokens); and the pages that hold them."""

    page_ids: list[int]
    """One for every 16 tokens; those that were dropped stay in here."""
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    seen: list[set[int]] = field(default_factory=list)
    page: int = PAGE
    dropped: set[int] = field(default_factory=set)
    """Pages that are left out of the table."""

    def add(self, tokens: Iterable[int], *, seen: Iterable[set[int]] = (), positions: Iterable[int] = ()) -> Line:
        """More tokens. They see everything before them, and stand behind what there is, unless it is said."""
        sights, places = iter(seen), iter(positions)
        for token in tokens:
            self.tokens.append(token)
            number = len(self.tokens) - 1
            self.seen.append(next(sights, set(range(number))) | {number})
            self.positions.append(next(places, self.positions[-1] + 1 if self.positions else 0))
        return self

    def hide(self, numbers: Iterable[int], since: int) -> Line:
        """The tokens from `since` on do not see these; pages that nobody sees from there on are left out."""
        for number in range(since, len(self.tokens)):
            self.seen[number] -= set(numbers) - {number}
        self.leave_out(since)
        return self

    def leave_out(self, since: int) -> None:
        seen = set().union(*self.seen[since:], range(since, len(self.tokens)))
        size = self.page
        self.dropped = {page for page in range(since // size) if seen.isdisjoint(range(page * size, (page + 1) * size))}

    def slot(self, number: int) -> int:
        return number - self.page * sum(page < number // self.page for page in self.dropped)

    def row(self, first: int, end: int, sampler: Sampler | None = GREEDY, *, is_plain: bool = False) -> Row:
        """The row that runs tokens `first … end - 1`."""
        if is_plain:
            return Row(self.tokens[first:end], first, self.page_ids, sampler)
        kept = [number for number in range(end) if number // self.page not in self.dropped]
        runs: list[tuple[int, int]] = []
        for number in kept:
            slot, position = self.slot(number), self.positions[number]
            if not runs or position - runs[-1][1] != slot - runs[-1][0]:
                runs.append((slot, position))
        seen = [united((self.slot(n), self.slot(n) + 1) for n in self.seen[number]) for number in range(first, end)]
        table = [page_id for page, page_id in enumerate(self.page_ids) if page not in self.dropped]
        return Row(self.tokens[first:end], self.slot(first), table, sampler, layout=Layout(runs, seen))

    def is_hidden(self, window: int | None = None) -> np.ndarray:
        """[tokens, tokens]: what the row's token does not see of the column's, in a layer with this window."""
        hidden = np.ones((len(self.tokens), len(self.tokens)), np.bool_)
        for number, seen in enumerate(self.seen):
            hidden[number, list(seen)] = False
        if window is not None:
            positions = np.array(self.positions)
            hidden |= positions[:, None] - positions >= window
        return hidden


def random_line(page_ids: list[int], length: int, seed: int, *, vocab_size: int = 300) -> Line:
    """A prompt, holes, branches, jumps of positions, and a window with sinks, one after the other."""
    draw = random.Random(seed)

    def some(count: int) -> list[int]:
        return [draw.randrange(5, vocab_size) for _ in range(count)]

    line = Line(page_ids).add(some(length // 3))
    first = draw.randrange(2, 8)
    hole = set(range(first, first + draw.randrange(17, 20)))
    while len(line.tokens) < 2 * length // 3:
        number = len(line.tokens)
        kind = draw.randrange(3)
        if kind == 0:  # branches that start at the same token
            trunk = set(range(number)) - hole
            base = line.positions[-1] + 1
            for _ in range(2):
                branch = range(len(line.tokens), len(line.tokens) + 3)
                seen = [trunk | set(branch[:index]) for index in range(3)]
                line.add(some(3), seen=seen, positions=range(base, base + 3))
        elif kind == 1:  # a jump
            jump = line.positions[-1] + draw.randrange(-3, 12)
            line.add(some(2), seen=[set(range(n)) - hole for n in (number, number + 1)], positions=[max(jump, 0)])
        else:  # a mask without rhyme or reason
            line.add(some(1), seen=[{n for n in range(number) if n not in hole and draw.random() < 0.6}])
    window, sinks = draw.randrange(6, 20), draw.randrange(1, 5)
    while len(line.tokens) < length:
        number = len(line.tokens)
        line.add(some(1), seen=[set(range(sinks)) | set(range(max(number + 1 - window, 0), number))])
    return line
