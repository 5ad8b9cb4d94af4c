"""What the tokens of a context see, in sets, as its program would say it: the reference for `kv.view` and above."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy

from pie_engine.driver.base import Driver
from tests.layouts import Line


class Story:
    """A context and all that happened to what it sees."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.masks: dict[int, set[int]] = {}
        self.drops: list[tuple[int, set[int]]] = []
        """From which token on nobody sees which tokens."""
        self.windows: list[tuple[int, int, int]] = []
        """From which token on: window, sinks."""
        self.extend(tokens)

    def extend(self, tokens: Iterable[int], positions: Sequence[int] = (), masks: Sequence[set[int]] = ()) -> None:
        for index, token in enumerate(tokens):
            self.tokens.append(token)
            usual = self.positions[-1] + 1 if self.positions else 0
            self.positions.append(positions[index] if positions else usual)
            if masks:
                self.masks[len(self.tokens) - 1] = masks[index]

    def drop(self, first: int, end: int) -> None:
        self.drops.append((len(self.tokens) - 1, set(range(first, end))))

    def slide(self, window: int, sinks: int) -> None:
        since = max(len(self.tokens) - 1, 0)
        if self.windows:
            if self.windows[-1][1:] == (window, sinks):
                return
            self.drops.append((since, self._out_of_window(since)))
        self.windows.append((since, window, sinks))

    def truncate(self, length: int) -> None:
        del self.tokens[length:], self.positions[length:]
        self.masks = {number: seen for number, seen in self.masks.items() if number < length}
        self.drops = [(min(since, max(length - 1, 0)), gone & set(range(length))) for since, gone in self.drops]
        self.windows = [window for window in self.windows if window[0] < length]

    def fork(self, length: int) -> Story:
        child = deepcopy(self)
        child.truncate(length)
        return child

    def seen(self, number: int) -> set[int]:
        seen = set(self.masks.get(number, range(number)))
        for since, gone in self.drops:
            if since <= number:
                seen -= gone
        return seen - self._out_of_window(number) | {number}

    def _out_of_window(self, number: int) -> set[int]:
        for since, window, sinks in reversed(self.windows):
            if since <= number:
                return set(range(sinks, number + 1 - window))
        return set()

    def line(self, page_ids: Sequence[int]) -> Line:
        return Line(list(page_ids)).add(
            self.tokens, seen=map(self.seen, range(len(self.tokens))), positions=self.positions
        )


def next_tokens(story: Story, num_prompt: int, new_driver: Callable[[int], Driver], page_size: int) -> list[int | None]:
    """The greedy token behind each token from number `num_prompt - 1` on, with all in pages and computed anew."""
    num_tokens = len(story.tokens)
    driver = new_driver(num_tokens)
    line = story.line(range(-(-num_tokens // page_size)))
    line.page = page_size
    row = line.row(0, num_tokens)
    row.draft_uniforms = [0.0] * (num_tokens - num_prompt)
    [result] = driver.execute([row])
    driver.close()
    return [*(sample.token for sample in result.before_drafts), result.token]
