"""From the tokens of a context to the slots of a page table that leaves pages out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pie_engine.kv.layout import Layout, Range, Spans, common, united, without
from pie_engine.kv.view import View


class _Piece(NamedTuple):
    """Tokens side by side that have pages, and the slot of the first of them."""

    first: int
    end: int
    slot: int


def laid_out(
    page_ids: Sequence[int], gone: Spans, page_size: int, view: View, end: int, seen: Sequence[Spans]
) -> tuple[list[int], int, Layout]:
    """The page table without what is gone, the slot of the row's first token, and the layout of the row.

    `gone`: places in `page_ids` that have no page. `seen`: of each of the row's tokens, which are the last ones before
    `end`, the tokens that it sees.
    """
    kept = without([(0, len(page_ids))], gone)
    pieces = [*_pieces(kept, page_size)]
    runs = _joined(run for piece in pieces for run in _runs(view, piece, end))
    slots = [_slots(pieces, spans) for spans in seen]
    return [page for first, stop in kept for page in page_ids[first:stop]], slots[0][-1][1] - 1, Layout(runs, slots)


def _pieces(kept: Spans, size: int) -> Iterator[_Piece]:
    slot = 0
    for first, end in kept:
        yield _Piece(first * size, end * size, slot)
        slot += (end - first) * size


def _runs(view: View, piece: _Piece, end: int) -> Iterator[tuple[int, int]]:
    """The runs of a `Layout` for the tokens of `piece` before `end`."""
    slot = piece.slot
    for first, stop in view.runs(piece.first, min(piece.end, end)):
        yield slot, first
        slot += stop - first


def _joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without those that only go on."""
    found: list[tuple[int, int]] = []
    for slot, position in runs:
        if not found or position - found[-1][1] != slot - found[-1][0]:
            found.append((slot, position))
    return found


def _slots(pieces: Sequence[_Piece], spans: Spans) -> list[Range]:
    """The slots of the tokens of `spans` that have one."""
    return united(
        (piece.slot + first - piece.first, piece.slot + end - piece.first)
        for piece in pieces
        for first, end in common([(piece.first, piece.end)], spans)
    )
