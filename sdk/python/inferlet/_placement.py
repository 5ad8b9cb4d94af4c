"""Positions and attention masks as they cross to the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from inferlet import _checks, _transport
from inferlet.errors import InvalidInput

TokenMask = Sequence[bool] | Sequence[range]
"""What one token sees: a bool for each token of the context up to itself, or ranges of them."""


def placement(
    num_before: int, num_tokens: int, positions: Iterable[int] | None, mask: Iterable[TokenMask] | None
) -> Any:
    """The record for `num_tokens` tokens behind `num_before` others; None: nothing is asked."""
    if positions is None and mask is None:
        return None
    where = (
        None if positions is None else [_checks.count("a position", each) for each in _listed("positions", positions)]
    )
    rows = None if mask is None else _listed("mask", mask)
    for name, rows_of in (("positions", where), ("mask", rows)):
        if rows_of is not None and len(rows_of) != num_tokens:
            raise InvalidInput(f"{name} needs an entry for each of the {num_tokens} tokens; got {len(rows_of)}")
    runs = None if rows is None else [_runs(row, index, num_before + index + 1) for index, row in enumerate(rows)]
    return _transport.host.context.Placement(where, runs)


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidInput(f"{name} has to be a list with an entry for each token; got {value!r}")
    return list(value)


def _runs(row: Any, index: int, length: int) -> list[int]:
    """How many of `length` tokens are hidden, how many after them are seen, and so on. The last one is seen."""
    entries = _listed(f"the mask of token {index}", row)
    spans = [(entry.start, entry.stop) for entry in entries if isinstance(entry, range) and entry.step == 1]
    if len(spans) == len(entries):
        runs = _runs_of_spans(spans, index, length)
    elif all(isinstance(entry, bool) for entry in entries):
        runs = [*([0] if entries[0] else []), *(len(list(group)) for _, group in groupby(entries))]
    else:
        raise InvalidInput(f"the mask of token {index} has to be of bools, or of ranges of tokens; got {row!r}")
    if sum(runs) != length:
        raise InvalidInput(f"the mask of token {index} has to be of the {length} tokens up to it; got {sum(runs)}")
    if len(runs) % 2:
        raise InvalidInput(f"token {index} has to see at least itself; its mask hides it")
    return runs


def _runs_of_spans(spans: list[tuple[int, int]], index: int, length: int) -> list[int]:
    runs: list[int] = []
    end = 0
    for first, stop in sorted(span for span in spans if span[0] < span[1]):
        if first < 0 or stop > length:
            raise InvalidInput(
                f"the mask of token {index} has range({first}, {stop}); there are {length} tokens up to it"
            )
        if runs and first <= end < stop:
            runs[-1] += stop - end
        elif stop > end:
            runs += [first - end, stop - first]
        end = max(end, stop)
    return [*runs, length - end] if end < length else runs
