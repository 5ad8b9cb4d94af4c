"""What the tokens of a row with a layout of its own (`kv.layout`) see in the layers with one window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pie_engine.kv.layout import Layout


@dataclass(frozen=True, slots=True)
class Sight:
    """The pages of which any token of the row sees anything, and what each token sees of them."""

    page_ids: list[int]
    is_seen: np.ndarray[Any, Any]
    """[tokens, slots up to the last that is seen], of these pages alone, side by side."""


def sight_of(layout: Layout, start: int, end: int, page_ids: Sequence[int], window: int | None, size: int) -> Sight:
    """Of the tokens in slots `start … end - 1`, whose pages have `size` slots.

    With a `window`, a token at position p sees keys at positions from `p - window + 1` on. Positions count, not slots:
    with holes between them, fewer keys are within the window.
    """
    num_pages = -(-end // size)
    is_seen = np.zeros((end - start, num_pages * size), np.bool_)
    for token, spans in enumerate(layout.seen):
        for first, stop in spans:
            is_seen[token, first:stop] = True
    if window is not None:
        positions = np.zeros(num_pages * size, np.int64)
        positions[:end] = layout.positions(0, end)
        is_seen &= positions > positions[start:end, None] - window
    by_page = is_seen.reshape(end - start, num_pages, size)
    used = np.flatnonzero(by_page.any(axis=(0, 2))).tolist()
    # Behind the row's own last slot lies what an earlier owner of the page left there.
    num_slots = len(used) * size - (num_pages * size - end)
    kept = by_page[:, used].reshape(end - start, -1)[:, :num_slots]
    return Sight([page_ids[page] for page in used], kept)


def words_of(is_seen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`is_seen` [tokens, slots] with 16 slots to a word [tokens, pages]: bit i is slot i of the page."""
    padded = np.zeros((len(is_seen), -(-is_seen.shape[1] // 16) * 16), np.bool_)
    padded[:, : is_seen.shape[1]] = is_seen
    return np.ascontiguousarray(np.packbits(padded, axis=1, bitorder="little").view("<u2"), np.uint16)
