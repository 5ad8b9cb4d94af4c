"""What the tokens of a saved context see, where they stand, and of which pages it has no KV.

The written form of `kv.view`, for manifests and messages. Tokens are said by their numbers, pages by their places in
the table.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec

Range = tuple[int, int]
"""First and end."""


class Sight(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Of a context where that is not simply everything before each token. All lists are in ascending order."""

    drops: list[tuple[int, list[Range]]] = []
    """From token `[0]` on nobody sees the tokens `[1]`: all that have been dropped up to then."""
    windows: list[tuple[int, int, int]] = []
    """From token `[0]` on, tokens see the last `[1]` tokens, themselves included, and the first `[2]`."""
    jumps: list[tuple[int, int]] = []
    """From token `[0]` on, positions go up one by one from `[1]`."""
    masks: list[tuple[int, list[Range]]] = []
    """Token `[0]` sees the tokens `[1]`, the last of which is itself."""
    gone: list[Range] = []
    """Pages that no coming token sees; the KV has none in their place."""

    @property
    def is_view(self) -> bool:
        """Whether a program has asked for it; else only the model's own window has let pages go."""
        return bool(self.drops or self.windows or self.jumps or self.masks)

    @property
    def num_gone(self) -> int:
        return sum(end - first for first, end in self.gone)

    @property
    def num_dropped(self) -> int:
        """Tokens that were dropped."""
        return sum(end - first for first, end in self.drops[-1][1]) if self.drops else 0

    def positions(self, num_tokens: int) -> list[int]:
        """The last one of each run, before positions jump and in the end."""
        numbers = [*(number for number, _ in self.jumps), num_tokens]
        return [position + end - 1 - number for (number, position), end in zip(self.jumps, numbers[1:], strict=True)]

    def fault(self, num_tokens: int, page_size: int) -> str:
        """What is wrong with it for a context of so many tokens; empty: nothing."""
        sinces = (
            [since for since, _ in self.drops],
            [since for since, _, _ in self.windows],
            [number for number, _ in self.masks],
        )
        numbers = [number for number, _ in self.jumps]
        if not all(_ascends([-1, *each], num_tokens - 1, repeats=True) for each in sinces):
            return "its holes, windows or masks are of tokens that are not there"
        if not _ascends([-1, *numbers], num_tokens - 1) or not all(position >= 0 for _, position in self.jumps):
            return "its positions are of tokens that are not there"
        if not all(size >= 1 and sinks >= 0 for _, size, sinks in self.windows):
            return "its window is none"
        if not all(_are_spans(gone, num_tokens) for _, gone in self.drops):
            return "its holes are no ranges of its tokens"
        if not all(seen and _are_spans(seen, number + 1) and seen[-1][1] == number + 1 for number, seen in self.masks):
            return "its masks are no ranges of its tokens"
        if not _are_spans(self.gone, -(-num_tokens // page_size)):
            return "its pages are no ranges of those of its tokens"
        return ""


def _ascends(numbers: list[int], most: int, *, repeats: bool = False) -> bool:
    return numbers[-1] <= most and all(a < b or (repeats and 0 <= a == b) for a, b in pairwise(numbers))


def _are_spans(spans: list[Range], end: int) -> bool:
    """Ascending ranges up to `end` that neither overlap nor touch."""
    edges = [-1, *(edge for span in spans for edge in span)]
    return edges[-1] <= end and all(a < b for a, b in pairwise(edges))
