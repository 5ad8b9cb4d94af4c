"""Where new tokens of a context stand, and what they see."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pie_engine.errors import InvalidInput


class Placement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of the tokens that come with it. A field that is left out: as usual."""

    positions: list[int] | None = None
    """Of each token. Those that come after them go on behind the last one."""
    mask: list[list[int]] | None = None
    """What each token sees, run-length coded: how many tokens of the context it does not see, from the first on, how
    many after them it sees, and so on up to itself. It sees itself."""

    def check(self, num_before: int, num_tokens: int, max_positions: int) -> None:
        """Raises `InvalidInput` unless it fits `num_tokens` tokens behind `num_before` others."""
        if self.positions is not None:
            _check_count("positions", self.positions, num_tokens)
            for position in self.positions:
                if not 0 <= position < max_positions:
                    raise InvalidInput(f"position {position} is out of range: the model takes 0 … {max_positions - 1}")
        if self.mask is not None:
            _check_count("the mask", self.mask, num_tokens)
            for index, runs in enumerate(self.mask):
                _check_runs(runs, index, num_before + index + 1)

    def spans(self) -> list[list[tuple[int, int]]]:
        """What each token sees, as ranges of tokens of the context, after `check`."""
        return [_spans(runs) for runs in self.mask or ()]


def _check_count(what: str, given: Sequence[object], num_tokens: int) -> None:
    if len(given) != num_tokens:
        raise InvalidInput(f"{what} has to be of {num_tokens} tokens, one entry each; got {len(given)}")


def _check_runs(runs: Sequence[int], index: int, length: int) -> None:
    if any(run < 0 for run in runs) or sum(runs) != length:
        raise InvalidInput(
            f"the mask of token {index} covers {sum(runs)} tokens; there are {length} up to it, itself included"
        )
    spans = _spans(runs)
    if not spans:
        raise InvalidInput(f"token {index} sees nothing by its mask", hint="a token sees at least itself")
    if spans[-1][1] != length:
        raise InvalidInput(f"token {index} does not see itself by its mask", hint="a token sees at least itself")


def _spans(runs: Sequence[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    end = 0
    for index, run in enumerate(runs):
        first, end = end, end + run
        if index % 2 and run:
            if spans and spans[-1][1] == first:
                first = spans.pop()[0]
            spans.append((first, end))
    return spans
